package simulator

import (
	"net/http"
	"slices"
	"strings"
)

// The scopes of the provider.
const (
	scopeProfile = "profile" // username and e-mail address
	scopeBalance = "balance" // quota and balance
)

// allScopes is also the scope of a request that names none.
const allScopes = scopeProfile + " " + scopeBalance

// parseScope checks a scope parameter against the allowed scopes, and returns
// it without repetitions. An empty one means all allowed scopes. Words are
// separated by exactly one space (RFC 6749 section 3.3).
func parseScope(scope, allowed string) (string, *oauthError) {
	if scope == "" {
		return allowed, nil
	}
	var granted []string
	for word := range strings.SplitSeq(scope, " ") {
		if word == "" || !hasScope(allowed, word) {
			return "", &oauthError{
				http.StatusBadRequest, "invalid_scope",
				"the scope must be one or more of: " + allowed,
			}
		}
		if !slices.Contains(granted, word) {
			granted = append(granted, word)
		}
	}
	return strings.Join(granted, " "), nil
}

func hasScope(scope, word string) bool {
	return slices.Contains(strings.Split(scope, " "), word)
}

// includesScope reports whether every word of wanted is in scope.
func includesScope(scope, wanted string) bool {
	for word := range strings.SplitSeq(wanted, " ") {
		if !hasScope(scope, word) {
			return false
		}
	}
	return true
}
