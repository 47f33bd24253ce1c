package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

//go:embed sdk.js
var sdkFile string

// endpointsLine is the one line of sdk.js in which two sites may differ.
var endpointsLine = regexp.MustCompile(`(?m)^const endpoints = \{.*\};$`)

// servedScript is sdk.js as it is served, but for the line of the endpoints.
var servedScript = withoutComments(sdkFile)

// withoutComments leaves out the comments that have lines of their own: a fifth of the
// bytes on the wire. The code stays readable for those who want to
// know what runs in their page. The lines at the top stay: they name the manual.
//
// It knows no JavaScript. A comment has to begin its line, with // or /**, and a block
// has to end with its line; every other line stays, also one with code behind a block.
func withoutComments(script string) string {
	top, rest, _ := strings.Cut(script, "\n\n")
	var kept strings.Builder
	kept.WriteString(top + "\n\n")
	inBlock := false
	for line := range strings.Lines(rest) {
		text := strings.TrimSpace(line)
		switch {
		case inBlock:
			inBlock = !strings.HasSuffix(text, "*/")
		case strings.HasPrefix(text, "//"):
		case strings.HasPrefix(text, "/**") && strings.HasSuffix(text, "*/"):
		case strings.HasPrefix(text, "/**") && !strings.Contains(text, "*/"):
			inBlock = true
		default:
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// SDK is the script that applications load into their pages.
type SDK struct {
	Plain, Gzipped []byte
}

// Endpoints are the paths at which the script asks. An empty one is an endpoint that
// the site does not have.
type Endpoints struct {
	Start    string `json:"start"`
	Userinfo string `json:"userinfo"`
	Refresh  string `json:"refresh"`
	Topup    string `json:"topup"`
	Logout   string `json:"logout"`
}

// NewSDK makes the script of a site. Nothing in it comes from a request: whoever asks
// gets the same bytes.
func NewSDK(endpoints Endpoints) (*SDK, error) {
	paths, err := json.Marshal(endpoints) // which escapes what ends a script or a line
	if err != nil {
		return nil, fmt.Errorf("writing the endpoints into the SDK: %w", err)
	}
	line := "const endpoints = " + string(paths) + ";"
	sdk := &SDK{Plain: []byte(endpointsLine.ReplaceAllLiteralString(servedScript, line))}

	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err = w.Write(sdk.Plain)
	if closed := w.Close(); err != nil || closed != nil {
		return nil, fmt.Errorf("compressing the SDK: %w", cmp.Or(err, closed))
	}
	sdk.Gzipped = compressed.Bytes()
	return sdk, nil
}
