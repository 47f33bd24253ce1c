// Package respond writes the responses of the gateway itself that are no pages: problem
// documents, JSON and redirects, with the headers that each of them carries.
//
// The pages are in package web, and the module decides which response a request gets.
// Begin with Problem.
package respond

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// Challenge is the WWW-Authenticate value that RFC 9110 section 15.5.2 requires in every
// 401. No browser opens a password prompt for it.
const Challenge = `Cookie realm="tollgate"`

// NotAuthenticated is the text of a 401. The provider's sample backend sends it as the
// `error` of its user information, so the endpoint userinfo does too.
const NotAuthenticated = "Not authenticated"

// Unauthenticated sends a 401. loginURL starts a sign-in.
func Unauthenticated(w http.ResponseWriter, r *http.Request, loginURL string) error {
	return WriteChallenge(w, r, Problem{Error: "not_authenticated", Description: NotAuthenticated, LoginURL: loginURL})
}

// WriteChallenge completes a problem document of 401 and sends it.
func WriteChallenge(w http.ResponseWriter, r *http.Request, p Problem) error {
	w.Header().Set("WWW-Authenticate", Challenge)
	p.Title, p.Status = "Authentication required", http.StatusUnauthorized
	return WriteProblem(w, r, p)
}

// SetOwnHeaders sets the headers that every response of the gateway itself carries.
func SetOwnHeaders(header http.Header) {
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
}

// JSON sends a JSON document. It returns an error, and has sent nothing, if the document
// cannot be encoded.
func JSON(w http.ResponseWriter, r *http.Request, status int, contentType string, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	header := w.Header()
	SetOwnHeaders(header)
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body) // fails only if the client has gone away
	}
	return nil
}

// The media types of JSON documents and of problem documents.
const (
	TypeJSON    = "application/json"
	TypeProblem = "application/problem+json"
)

// Problem is an RFC 9457 problem document. Its member error is a code in snake_case,
// except at the endpoint userinfo: see NotAuthenticated.
type Problem struct {
	Type        string `json:"type"`
	Title       string `json:"title"`
	Status      int    `json:"status"`
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
	LoginURL    string `json:"login_url,omitempty"`
	// Cause is the name of the cause in package cause, if the provider or the store is
	// unavailable.
	Cause string `json:"cause,omitempty"`
}

// WriteProblem sends a problem document with its status.
func WriteProblem(w http.ResponseWriter, r *http.Request, p Problem) error {
	p.Type = "about:blank"
	return JSON(w, r, p.Status, TypeProblem, p)
}

// Redirect sends a redirect. The location must be safe already. http.Redirect would clean
// its path once more, which can turn a path of this origin into "//host".
func Redirect(w http.ResponseWriter, status int, location string) error {
	SetOwnHeaders(w.Header())
	w.Header().Set("Location", location)
	w.WriteHeader(status)
	return nil
}

// DenyMethod sends a 405. allowed lists the methods that the endpoint serves.
func DenyMethod(w http.ResponseWriter, r *http.Request, allowed string) error {
	w.Header().Set("Allow", allowed)
	return WriteProblem(w, r, Problem{Title: "Method not allowed", Status: http.StatusMethodNotAllowed, Error: "method_not_allowed"})
}

// AmbiguousPath sends the 400 for an ambiguous path, such as `/public/..%2fadmin`.
func AmbiguousPath(w http.ResponseWriter, r *http.Request) error {
	return WriteProblem(w, r, Problem{Title: "Ambiguous path", Status: http.StatusBadRequest, Error: "bad_request"})
}
