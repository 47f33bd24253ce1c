package web

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"image"
	_ "image/jpeg" // for what a logo may be
	_ "image/png"
	"io"
)

// Logo is a picture that every page carries in itself, so that it is there before
// anybody is signed in, and while the application is away. The zero value is none.
type Logo struct {
	url template.URL
}

// maxLogo is how many bytes a logo may have: every page has them once more, and a
// third on top.
const maxLogo = 32 << 10

// ParseLogo reads a picture: PNG, JPEG or SVG. In an <img> a browser runs no script of
// an SVG, and loads nothing that it refers to.
func ParseLogo(raw []byte) (Logo, error) {
	if len(raw) > maxLogo {
		return Logo{}, fmt.Errorf("has more than %d bytes, and every page carries it", maxLogo)
	}
	mediaType := ""
	if _, format, err := image.DecodeConfig(bytes.NewReader(raw)); err == nil && (format == "png" || format == "jpeg") {
		mediaType = "image/" + format
	} else if isSVG(raw) {
		mediaType = "image/svg+xml"
	}
	if mediaType == "" {
		return Logo{}, errors.New("is not a picture in PNG, JPEG or SVG")
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
