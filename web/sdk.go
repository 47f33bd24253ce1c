package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

//go:embed sdk.js
var sdkFile string

// endpointsLine is the only line of sdk.js that differs between sites.
var endpointsLine = regexp.MustCompile(`(?m)^const endpoints = \{.*\};$`)

// servedScript is sdk.js as it is served, with the endpoints still unset.
var servedScript = withoutComments(sdkFile)

// withoutComments removes the comments that have lines of their own, which are a fifth of
// the bytes. The code stays readable for developers who want to know what runs in their
// page. The lines at the top stay, because they name the manual.
//
// It does not parse JavaScript. It removes a comment only if the comment begins its line,
// with // or /**, and if a block ends its line. Every other line stays.
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
	plain, gzipped []byte
}

// Endpoints are the paths of the endpoints that the script calls. A path is empty if the
// site does not have the endpoint.
type Endpoints struct {
	Start    string `json:"start"`
	Userinfo string `json:"userinfo"`
	Refresh  string `json:"refresh"`
	Topup    string `json:"topup"`
	Logout   string `json:"logout"`
}

// NewSDK makes the script of a site. Nothing in it comes from a request, so every request
// gets the same bytes.
func NewSDK(endpoints Endpoints) (*SDK, error) {
	paths, err := json.Marshal(endpoints) // escapes text that would end a script or a line
	if err != nil {
		return nil, fmt.Errorf("writing the endpoints into the SDK: %w", err)
	}
	line := "const endpoints = " + string(paths) + ";"
	sdk := &SDK{plain: []byte(endpointsLine.ReplaceAllLiteralString(servedScript, line))}

	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err = w.Write(sdk.plain)
	if closed := w.Close(); err != nil || closed != nil {
		return nil, fmt.Errorf("compressing the SDK: %w", cmp.Or(err, closed))
	}
	sdk.gzipped = compressed.Bytes()
	return sdk, nil
}

// Write sends the script. Cross-Origin-Resource-Policy keeps pages of other origins from
// loading it: there it would call the endpoints of the wrong origin.
func (sdk *SDK) Write(w http.ResponseWriter, method string, compressed bool) {
	header, body := w.Header(), sdk.plain
	header.Set("Content-Type", "text/javascript; charset=utf-8")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Vary", "Accept-Encoding")
	if compressed {
		header.Set("Content-Encoding", "gzip")
		body = sdk.gzipped
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if method != http.MethodHead {
		_, _ = w.Write(body) // fails only if the client has gone away
	}
}
