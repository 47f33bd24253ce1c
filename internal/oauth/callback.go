package oauth

import (
	"net/url"
)

// Callback holds the callback's parameters.
type Callback struct {
	State, Code, ErrorCode, Issuer string
}

// ParseCallback reads the callback's parameters, and ignores unknown ones. It refuses a
// parameter that occurs twice, because two readers could take different values (RFC 6749
// section 3.1). cause is the name of the error, or empty.
func ParseCallback(query url.Values) (callback Callback, cause string) {
	for _, name := range []string{"state", "code", "error", "iss"} {
		if len(query[name]) > 1 {
			return Callback{}, "invalid_state"
		}
	}
	callback = Callback{query.Get("state"), query.Get("code"), query.Get("error"), query.Get("iss")}
	if callback.ErrorCode == "" && (callback.Code == "" || callback.State == "") {
		return Callback{}, "missing_parameters"
	}
	return callback, ""
}

// authorizationErrorCodes are the error codes of RFC 6749 section 4.1.2.1. Any other value
// may have been put into the URL by an attacker, so it is replaced by server_error.
var authorizationErrorCodes = map[string]bool{
	"invalid_request": true, "unauthorized_client": true, "access_denied": true, "unsupported_response_type": true,
	"invalid_scope": true, "server_error": true, "temporarily_unavailable": true,
}

// AuthorizationErrorCode returns code if RFC 6749 defines it, and server_error otherwise.
func AuthorizationErrorCode(code string) string {
	if authorizationErrorCodes[code] {
		return code
	}
	return "server_error"
}
