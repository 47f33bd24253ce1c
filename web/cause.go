package web

// explanations maps each cause to an explanation for the user. Its texts are
// cause.<explanation> in the language files. Many codes mean the same to a
// user: the operator of the site has to act.
var explanations = map[string]string{
	// Found by the gateway.
	"missing_parameters": "incomplete",
	"invalid_state":      "expired",
	"expired":            "aside",
	"login_loop":         "loop",
	"invalid_response":   "response",

	// Found after the sign-in: the provider does not say where to top up.
	"topup_failed": "topup",

	// RFC 6749 section 4.1.2.1, the authorization endpoint.
	"access_denied":             "denied",
	"server_error":              "failed",
	"temporarily_unavailable":   "busy",
	"invalid_request":           "setup",
	"unauthorized_client":       "setup",
	"unsupported_response_type": "setup",
	"invalid_scope":             "setup",

	// RFC 6749 section 5.2, the token endpoint.
	"invalid_grant":          "grant",
	"invalid_client":         "setup",
	"unsupported_grant_type": "setup",
}

// explanation returns the explanation of a cause. An unknown cause gets the
// general text.
func explanation(cause string) string {
	if e, ok := explanations[cause]; ok {
		return e
	}
	return "unknown"
}

// knownCode returns cause if it may be shown on a page or passed to a script of
// the application, and "" otherwise. It uses a list and not a pattern, because
// the value may come from the query of the callback, which an attacker can
// write.
func knownCode(cause string) string {
	if _, ok := explanations[cause]; ok {
		return cause
	}
	return ""
}
