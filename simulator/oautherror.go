package simulator

import (
	"encoding/json"
	"errors"
	"net/http"
)

// oauthError is an error response of RFC 6749 sections 4.1.2.1 and 5.2. The
// code is for programs, and the description for developers.
type oauthError struct {
	status      int
	code        string
	description string
}

func (e *oauthError) Error() string { return e.code + ": " + e.description }

func invalidRequest(description string) error {
	return &oauthError{http.StatusBadRequest, "invalid_request", description}
}

// invalidGrant is the only error after which a client should end its session.
func invalidGrant(description string) error {
	return &oauthError{http.StatusBadRequest, "invalid_grant", description}
}

func invalidClient(description string) error {
	return &oauthError{http.StatusUnauthorized, "invalid_client", description}
}

// writeOAuthError writes an error of the token or revocation endpoint.
func writeOAuthError(w http.ResponseWriter, err error) {
	oe, ok := errors.AsType[*oauthError](err)
	if !ok {
		oe = &oauthError{http.StatusInternalServerError, "server_error", "the simulator failed"}
	}
	if oe.status == http.StatusUnauthorized {
		// RFC 6749 section 5.2 requires the scheme that the client may use.
		w.Header().Set("WWW-Authenticate", `Basic realm="aihubmix simulator", charset="UTF-8"`)
	}
	writeJSON(w, oe.status, map[string]string{
		"error":             oe.code,
		"error_description": oe.description,
	})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	// An error here means that the client has left. Nothing can be done.
	_ = json.NewEncoder(w).Encode(value)
}
