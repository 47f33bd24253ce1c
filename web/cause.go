package web

// explanations maps each cause a caller may name to the explanation people
// read, the key cause.<explanation> of the language files. Many codes say the
// same to a person: whoever set up the site has to act.
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

// explanation never fails: a cause it does not know gets the general text.
func explanation(cause string) string {
	if e, ok := explanations[cause]; ok {
		return e
	}
	return "unknown"
}

// knownCode returns cause when it may be shown on a page or handed to a script
// of the application, else "". A list rather than a pattern, because the value
// may have come from the query of the callback, where anyone writes anything.
func knownCode(cause string) string {
	if _, ok := explanations[cause]; ok {
		return cause
	}
	return ""
}
