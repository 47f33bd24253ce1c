package oauth

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/cause"
)

// Failure is what a provider's failure means for the session.
type Failure int

const (
	// FailureTransient means that the provider did not process the request, and that a retry
	// may succeed.
	FailureTransient Failure = iota
	// FailureUnanswered means that the request was sent and no complete response arrived. It is
	// unknown whether the provider processed it.
	FailureUnanswered
	// FailureOperator means that the provider refuses this client, not this user.
	FailureOperator
	// FailureEnded means that the grant has ended (`invalid_grant`).
	FailureEnded
	// FailureUnauthorized means that the provider does not accept the access token.
	FailureUnauthorized
	// FailureRefused means that the provider definitely refused the request, for a reason that
	// is neither the grant nor the client. A retry does not help; a new sign-in may.
	FailureRefused
)

// Error is a failed request to the provider. The only part of the response in its text is a
// known error code.
type Error struct {
	Endpoint providerEndpoint
	Kind     Failure
	Status   int    // 0 if there was no response
	Code     string // error code of RFC 6749, if the response means one of them
	Reason   string
	// Because is the cause, where the other fields do not tell it.
	Because string
}

// Cause returns the cause of the failure, as package cause names it.
func (e *Error) Cause() string {
	atClient := e.Endpoint == EndpointToken || e.Endpoint == endpointRevocation
	switch {
	case e.Because != "":
		return e.Because
	case e.Code != "":
		return e.Code
	case e.Status == 0:
		return cause.Unreachable
	case e.Status == http.StatusTooManyRequests:
		return cause.RateLimited
	case isOutage(e.Status):
		return cause.TemporarilyUnavailable
	case atClient && e.Status == http.StatusUnauthorized:
		return cause.InvalidClient
	case !atClient && (e.Kind == FailureUnauthorized || e.Status == http.StatusForbidden):
		return cause.UserinfoDenied
	default:
		return cause.InvalidResponse
	}
}

// Error returns the endpoint, the reason, and the error code.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("request to the provider's " + string(e.Endpoint) + " endpoint failed: " + e.Reason)
	if e.Code != "" {
		b.WriteString(" (" + e.Code + ")")
	}
	return b.String()
}

// FailureOf returns the meaning of err. An error of another type is transient.
func FailureOf(err error) Failure {
	if pe, ok := errors.AsType[*Error](err); ok {
		return pe.Kind
	}
	return FailureTransient
}

// IsRefusedRefresh reports whether the provider definitely refused a refresh, but neither ended
// the session nor complained about the client.
func IsRefusedRefresh(err error) bool {
	pe, ok := errors.AsType[*Error](err)
	return ok && pe.Endpoint == EndpointToken && pe.Kind == FailureRefused
}

// tokenErrorCode is the meaning of an error code of the token endpoint for a session.
type tokenErrorCode struct {
	name string // in RFC 6749
	kind Failure
	// final is true if the code counts even if the status reports an outage.
	final bool
}

// tokenErrorCodes are the codes of RFC 6749 section 5.2, GitHub's names for two of them, and
// the codes that send the client to retry later. Only `invalid_grant` ends a session: dex also
// answers `invalid_request` while its storage is down. `invalid_client` and
// `unauthorized_client` complain about this client; a new sign-in would not help.
var tokenErrorCodes = map[string]tokenErrorCode{
	"invalid_grant":                {"invalid_grant", FailureEnded, true},
	"bad_verification_code":        {"invalid_grant", FailureEnded, true},
	"invalid_client":               {"invalid_client", FailureOperator, true},
	"incorrect_client_credentials": {"invalid_client", FailureOperator, true},
	"unauthorized_client":          {"unauthorized_client", FailureOperator, true},
	"invalid_request":              {"invalid_request", FailureRefused, false},
	"unsupported_grant_type":       {"unsupported_grant_type", FailureRefused, false},
	"invalid_scope":                {"invalid_scope", FailureRefused, false},
	"temporarily_unavailable":      {"temporarily_unavailable", FailureTransient, true},
	"server_error":                 {"server_error", FailureTransient, true},
	"slow_down":                    {"", FailureTransient, true},
}

// isOutage reports whether a status means that the provider cannot process requests now: 5xx,
// and the statuses that send the client to retry later. Such a status says nothing about the
// request itself.
func isOutage(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}
