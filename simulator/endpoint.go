package simulator

import "net/http"

// Endpoint names one of the provider's endpoints in counters and faults.
type Endpoint string

// The endpoints. Token means all requests to the token endpoint. Exchange and
// Refresh are its two grants. Each of them has a counter and a fault of its own, too.
const (
	Authorize Endpoint = "authorize"
	Token     Endpoint = "token"
	Exchange  Endpoint = "exchange"
	Refresh   Endpoint = "refresh"
	UserInfo  Endpoint = "userinfo"
	TopUp     Endpoint = "topup"
	Apps      Endpoint = "apps"
	Revoke    Endpoint = "revoke"
)

// Endpoints returns all endpoints, in the order in which a login uses them.
func Endpoints() []Endpoint {
	return []Endpoint{Authorize, Token, Exchange, Refresh, UserInfo, TopUp, Apps, Revoke}
}

// only returns a function that always returns this endpoint.
func only(e Endpoint) func(*http.Request) []Endpoint {
	endpoints := []Endpoint{e}
	return func(*http.Request) []Endpoint { return endpoints }
}

// tokenEndpoints returns the grant of the request and Token, in this order: a
// fault of Refresh comes before one of Token. If the request has no readable
// form, it returns only Token.
func tokenEndpoints(r *http.Request) []Endpoint {
	form, err := readForm(r)
	if err != nil {
		return []Endpoint{Token}
	}
	switch form.Get("grant_type") {
	case "authorization_code":
		return []Endpoint{Exchange, Token}
	case "refresh_token":
		return []Endpoint{Refresh, Token}
	default:
		return []Endpoint{Token}
	}
}
