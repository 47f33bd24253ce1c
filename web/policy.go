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

//go:embed sign_in.js
var signInFile string

//go:embed balance.js
var balanceFile string

// scripts are the scripts of the pages that have one. A script is the same for every user,
// so that a hash can allow it.
var scripts = map[Page]string{Popup: inline(popupFile), SignIn: inline(signInFile), Balance: inline(balanceFile)}

// inline returns the bytes as a browser will hash them. Its HTML parser replaces CR LF
// with LF first, and a checkout on Windows may have CR LF.
func inline(file string) string {
	return strings.ReplaceAll(file, "\r\n", "\n")
}

// contentSecurityPolicy allows one style sheet and at most one script, and nothing else
// that runs or loads. img-src is for the logo and for the empty data: icon, which prevents
// requests for /favicon.ico. Chromium applies form-action to redirects after a form post,
// too, so a logout must end at a path of this origin.
func contentSecurityPolicy(style, script string) string {
	scriptSrc := ""
	if script != "" {
		scriptSrc = "script-src " + hashSource(script) + "; "
	}
	return "default-src 'none'; style-src " + hashSource(style) + "; " + scriptSrc +
		"img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
}

func hashSource(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
