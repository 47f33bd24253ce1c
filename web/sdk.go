package web

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

//go:embed sdk.js
var sdkFile string

// endpointsLine is the only line of sdk.js that differs between sites.
var endpointsLine = regexp.MustCompile(`(?m)^const endpoints = \{.*\};$`)

// servedScript is sdk.js as it is served, with the endpoints still unset.
var servedScript = withoutComments(sdkFile)

// scriptBefore and scriptAfter are the parts of servedScript around endpointsLine.
var scriptBefore, scriptAfter = aroundEndpoints(servedScript)

func aroundEndpoints(script string) (before, after string) {
	line := endpointsLine.FindStringIndex(script)
	return script[:line[0]], script[line[1]:]
}

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
	plain   []byte
	gzipped func() []byte // compresses when it is first called
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
	plain := []byte(scriptBefore + "const endpoints = " + string(paths) + ";" + scriptAfter)
	return &SDK{plain: plain, gzipped: sync.OnceValue(func() []byte { return compress(plain) })}, nil
}

func compress(text []byte) []byte {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, _ = w.Write(text) // fails only if the buffer does
	_ = w.Close()
	return compressed.Bytes()
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
		body = sdk.gzipped()
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if method != http.MethodHead {
		_, _ = w.Write(body) // fails only if the client has gone away
	}
}
