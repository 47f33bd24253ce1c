package simulator

import "net/http"

// Endpoint names one of the provider's endpoints in counters and faults.
type Endpoint string

// The endpoints. Token stands for everything at the token endpoint; Exchange
// and Refresh are its two grants, each counted and broken on its own too.
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

// Endpoints lists all endpoints, in the order a login meets them.
func Endpoints() []Endpoint {
	return []Endpoint{Authorize, Token, Exchange, Refresh, UserInfo, TopUp, Apps, Revoke}
}

// only is the answer of a path that is always the same endpoint.
func only(e Endpoint) func(*http.Request) []Endpoint {
	endpoints := []Endpoint{e}
	return func(*http.Request) []Endpoint { return endpoints }
}

// tokenEndpoints tells the two grants apart, the more specific name first:
// a fault of Refresh wins over one of Token. A request that is no readable
// form is counted as Token alone.
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
