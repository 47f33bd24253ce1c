package oauth

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/header"
)

// isVisibleText reports whether a text contains only RFC 6749's VSCHAR (appendix A), as client
// ids, client secrets and tokens do.
func isVisibleText(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// hasBlankEnd reports whether a text begins or ends with white space.
func hasBlankEnd(s string) bool { return strings.TrimSpace(s) != s }

// Errors for texts that a protocol forbids. None of them repeats the text, because it may be a
// secret.
var (
	errBlankEnd  = errors.New("begins or ends with a space")
	errInvisible = errors.New("contains a character other than printable ASCII, which RFC 6749 does not allow")
)

// CheckCredential checks a client id or a client secret.
func CheckCredential(text string) error {
	switch {
	case hasBlankEnd(text):
		return errBlankEnd
	case !isVisibleText(text):
		return errInvisible
	}
	return nil
}

// CheckScope checks one scope, which is made of NQCHAR (RFC 6749 appendix A.4).
func CheckScope(scope string) error {
	for i := range len(scope) {
		if c := scope[i]; c <= 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return fmt.Errorf("%q is not a scope; write several scopes as separate words", scope)
		}
	}
	return nil
}

// CheckParamName checks the name of a parameter (RFC 6749 appendix A.8).
func CheckParamName(name string) error {
	for i := range len(name) {
		if !header.IsAlphanumeric(name[i]) && strings.IndexByte("-._", name[i]) < 0 {
			return fmt.Errorf("%q is not a valid parameter name", name)
		}
	}
	return nil
}
