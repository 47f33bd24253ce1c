package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
)

//go:embed sdk.js
var sdkFile string

// endpointsLine is the one line of sdk.js in which two sites may differ.
var endpointsLine = regexp.MustCompile(`(?m)^const endpoints = \{.*\};$`)

// SDK is the script that applications load into their pages. It is served as it is
// written, comments and all: compressed that costs little, and whoever wants to know
// what runs in their page can read it.
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
	sdk := &SDK{Plain: []byte(endpointsLine.ReplaceAllLiteralString(sdkFile, line))}

	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err = w.Write(sdk.Plain)
	if closed := w.Close(); err != nil || closed != nil {
		return nil, fmt.Errorf("compressing the SDK: %w", cmp.Or(err, closed))
	}
	sdk.Gzipped = compressed.Bytes()
	return sdk, nil
}
