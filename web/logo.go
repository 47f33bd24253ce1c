package web

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"image"
	_ "image/jpeg" // the formats of a logo
	_ "image/png"
	"io"
)

// Logo is a picture that every page contains. So it is shown before anybody is signed in,
// and while the application is down. The zero value is no logo.
type Logo struct {
	url template.URL
}

// maxLogo is the maximum size of a logo in bytes. Every page contains it as base64, which
// is a third longer.
const maxLogo = 32 << 10

// ParseLogo reads a picture: PNG, JPEG or SVG. In an <img>, a browser does not run scripts
// of an SVG and does not load its references.
func ParseLogo(raw []byte) (Logo, error) {
	if len(raw) > maxLogo {
		return Logo{}, fmt.Errorf("has more than %d bytes, which is too much for a file that every page contains", maxLogo)
	}
	mediaType := ""
	if _, format, err := image.DecodeConfig(bytes.NewReader(raw)); err == nil && (format == "png" || format == "jpeg") {
		mediaType = "image/" + format
	} else if isSVG(raw) {
		mediaType = "image/svg+xml"
	}
	if mediaType == "" {
		return Logo{}, errors.New("is not a PNG, JPEG or SVG picture")
	}
	url := "data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(raw)
	return Logo{url: template.URL(url)}, nil //nolint:gosec // base64 of what was checked above
}

// isSVG reports whether raw is one whole XML document whose root is an SVG's.
func isSVG(raw []byte) bool {
	decoder := xml.NewDecoder(bytes.NewReader(raw))
	root := ""
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return root == "http://www.w3.org/2000/svg svg"
		}
		if err != nil {
			return false
		}
		if start, ok := token.(xml.StartElement); ok && root == "" {
			root = start.Name.Space + " " + start.Name.Local
		}
	}
}
