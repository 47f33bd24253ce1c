package web

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"strings"
)

//go:embed style.css
var styleFile string

//go:embed popup.js
var popupFile string

var (
	style  = inline(styleFile)
	script = inline(popupFile)

	policy      = contentSecurityPolicy("")
	popupPolicy = contentSecurityPolicy("script-src " + hashSource(script) + "; ")
)

// inline returns the bytes as a browser will hash them: its HTML parser turns
// CR LF into LF first, and a checkout may have given us CR LF.
func inline(file string) string {
	return strings.ReplaceAll(file, "\r\n", "\n")
}

// contentSecurityPolicy allows our style sheet and nothing else that runs or
// loads. img-src is there for the empty data: icon, which keeps browsers from
// asking for /favicon.ico. Chromium holds redirects after a form post to
// form-action too, so a logout must end at a path of this origin.
func contentSecurityPolicy(scriptSrc string) string {
	return "default-src 'none'; style-src " + hashSource(style) + "; " + scriptSrc +
		"img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
}

func hashSource(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
