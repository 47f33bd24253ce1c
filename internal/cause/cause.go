// Package cause names why a sign-in, a refresh, a read of the user information or a top-up
// failed. Each failure has one cause, with the same name everywhere: on the page ("Error code"),
// at error_redirect, in the log, in the audit line and in the metrics.
//
// The package has the table of all causes, and finds the cause of an error. It logs nothing.
// Begin with Of and Find.
package cause

import (
	"context"
	"errors"
	"slices"
)

// The causes. The codes of RFC 6749 mean what the RFC says; the provider sends them.
const (
	AccessDenied            = "access_denied"
	InvalidRequest          = "invalid_request"
	InvalidScope            = "invalid_scope"
	TemporarilyUnavailable  = "temporarily_unavailable"
	UnauthorizedClient      = "unauthorized_client"
	UnsupportedGrantType    = "unsupported_grant_type"
	UnsupportedResponseType = "unsupported_response_type"

	MissingParameters = "missing_parameters"
	InvalidState      = "invalid_state"
	Expired           = "expired"
	OtherOrigin       = "other_origin"
	LoginLoop         = "login_loop"

	InvalidClient    = "invalid_client"
	InvalidGrant     = "invalid_grant"
	RateLimited      = "rate_limited"
	Timeout          = "timeout"
	Unreachable      = "unreachable"
	InvalidResponse  = "invalid_response"
	UserinfoDenied   = "userinfo_denied"
	InactiveUser     = "inactive_user"
	SessionTooLarge  = "session_too_large"
	StoreUnavailable = "store_unavailable"

	// ServerError is the cause of a failure that has no other one.
	ServerError = "server_error"
)

// caused is an error with a cause.
type caused struct {
	error
	code string
}

// Cause returns the code.
func (c *caused) Cause() string { return c.code }

// Unwrap returns the error without its cause.
func (c *caused) Unwrap() error { return c.error }

// Else gives err the cause code, unless it has a cause already. Its text does not change. Else
// returns nil if err is nil.
func Else(code string, err error) error {
	if _, known := find(err); err == nil || known {
		return err
	}
	return &caused{err, code}
}

// Of returns the cause of an error: the one that an error in its chain names, timeout if a
// context has timed out, and otherwise server_error. The cause of nil is empty.
func Of(err error) string {
	if err == nil {
		return ""
	}
	if code, known := find(err); known {
		return code
	}
	return ServerError
}

// find returns the cause that an error in the chain names with a method Cause.
func find(err error) (code string, known bool) {
	if named, ok := errors.AsType[interface {
		error
		Cause() string
	}](err); ok {
		code = named.Cause()
	} else if errors.Is(err, context.DeadlineExceeded) {
		code = Timeout
	}
	_, known = Find(code)
	return code, known
}

// Find returns the row of a cause. ok is false if there is no such cause.
func Find(code string) (row Row, ok bool) {
	i := slices.IndexFunc(rows, func(r Row) bool { return r.Code == code })
	if i < 0 {
		return Row{}, false
	}
	return rows[i], true
}

// All returns the rows of all causes, in the order of the documentation.
func All() []Row { return slices.Clone(rows) }
