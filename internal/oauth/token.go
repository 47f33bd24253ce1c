package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/caddy-tollgate/tollgate/internal/cause"
)

// maxExpiresIn is the maximum of expires_in, in seconds. No legitimate token lives longer than
// a year, and a larger number would overflow a duration.
const maxExpiresIn = 366 * 24 * 60 * 60

// tokenResponses sits between x/oauth2 and the network. x/oauth2 does not retry here, because the
// client authentication is fixed. But it discards a whole response, with the rotated refresh
// token in it, because of an odd expires_in; puts bodies into error texts; accepts tokens with
// control bytes; and does not ask for JSON. So this type asks for JSON, and reads, limits and
// checks every response. It passes a good response on in a plain form, and turns everything
// else into an *Error.
type tokenResponses struct {
	next  http.RoundTripper
	watch func(context.Context, string, string) (context.Context, func(int, error))
}

// RoundTrip implements http.RoundTripper.
func (t *tokenResponses) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent atomic.Bool
	ctx, end := t.watch(req.Context(), string(EndpointToken), req.Method)
	req = req.Clone(withSentTrace(ctx, &sent))
	// GitHub's token endpoint, and similar ones, send a form without this header.
	req.Header.Set("Accept", acceptedType)
	res, err := t.next.RoundTrip(req)
	if err != nil {
		end(0, err)
		kind := FailureTransient
		if sent.Load() {
			kind = FailureUnanswered
		}
		return nil, unansweredError(EndpointToken, kind, err)
	}
	body, readErr := readResponse(res.Body)
	res.Body.Close()
	end(res.StatusCode, nil)
	response := parseTokenResponse(body, readErr == nil)
	if err := response.judge(res.StatusCode, readErr); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(response.plain())
	if err != nil {
		return nil, &Error{Endpoint: EndpointToken, Kind: FailureUnanswered, Reason: "the response cannot be encoded", Because: cause.InvalidResponse}
	}
	res.Header = http.Header{"Content-Type": {"application/json"}}
	res.Body = io.NopCloser(bytes.NewReader(plain))
	res.ContentLength = int64(len(plain))
	return res, nil
}

// tokenResponse is the readable part of a token endpoint's response.
type tokenResponse struct {
	access    string
	refresh   string
	tokenType string
	scope     string
	expiresIn int64 // seconds; 0 if missing or unusable
	errorCode string
	refused   bool // success:false
	readable  bool // a JSON object, or a form with at least one of these members
}

// parseTokenResponse reads a JSON object or a form, and ignores Content-Type. It keeps everything
// before the first error, so that the refresh token survives if a later part of the response is
// broken. Set whole to false if the body may have been cut off.
func parseTokenResponse(body []byte, whole bool) tokenResponse {
	if isForm(body) {
		return parseTokenForm(string(body), whole)
	}
	var a tokenResponse
	d := json.NewDecoder(bytes.NewReader(body))
	if opening, err := d.Token(); err != nil || opening != json.Delim('{') {
		return a
	}
	a.readable = true
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return a
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return a
		}
		a.takeJSON(name, value)
	}
	return a
}

// isForm reports whether a body looks like a form and not like JSON or HTML, by its first
// character after white space.
func isForm(body []byte) bool {
	begin := bytes.TrimLeft(body, " \t\r\n\ufeff")
	return len(begin) > 0 && bytes.IndexByte([]byte("{[<\""), begin[0]) < 0
}

// parseTokenForm reads a form pair by pair in the same way. A form has no end mark. If it may
// have been cut off, the last pair is not read, because half a token looks like a whole one.
func parseTokenForm(body string, whole bool) tokenResponse {
	var a tokenResponse
	for rest, more := strings.TrimSpace(body), true; more; {
		var pair string
		pair, rest, more = strings.Cut(rest, "&")
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		if nameErr != nil || valueErr != nil || (!more && !whole) {
			return a
		}
		a.readable = a.take(name, value) || a.readable
	}
	return a
}

func (a *tokenResponse) takeJSON(name json.Token, value json.RawMessage) {
	text := jsonText(value)
	if len(value) > 0 && value[0] != '"' && (name == "expires_in" || name == "success") {
		text = string(value)
	}
	if name, ok := name.(string); ok {
		a.take(name, text)
	}
}

// take stores one member, and reports whether it is one that a token response may contain.
func (a *tokenResponse) take(name, text string) bool {
	switch name {
	case "access_token":
		a.access = tokenText(text)
	case "refresh_token":
		a.refresh = tokenText(text)
	case "token_type":
		a.tokenType = text
	case "scope":
		a.scope = text
	case "error":
		a.errorCode = text
	case "success":
		a.refused = text == "false"
	case "expires_in":
		a.expiresIn = parseExpiresIn(text)
	default:
		return false
	}
	return true
}

// judge checks the response: first its status and the error in its body, then whether it
// contains an access token. It returns nil for a good response.
func (a *tokenResponse) judge(status int, readErr error) error {
	pe := &Error{Endpoint: EndpointToken, Status: status}
	code, known := tokenErrorCodes[a.errorCode]
	outage := isOutage(status)
	switch {
	case known && (code.final || !outage):
		pe.Kind, pe.Code, pe.Reason = code.kind, code.name, "refused"
		if code.name == "" {
			pe.Because = cause.RateLimited
		}
		return pe
	case outage:
		pe.Reason = "status " + strconv.Itoa(status)
		return pe
	case status == http.StatusUnauthorized:
		pe.Kind, pe.Reason = FailureOperator, "the client authentication is not accepted"
		return pe
	case a.errorCode != "" || a.refused:
		pe.Kind, pe.Reason, pe.Because = FailureRefused, "refused without a known error code", cause.ServerError
		return pe
	case status >= 400:
		pe.Kind, pe.Reason = FailureRefused, "refused with status "+strconv.Itoa(status)
		return pe
	case status != http.StatusOK && status != http.StatusCreated:
		pe.Reason = "status " + strconv.Itoa(status)
		return pe
	case a.access != "" && (a.tokenType == "" || strings.EqualFold(a.tokenType, "bearer")):
		return nil
	}

	// The status reports success, but the response cannot be used. It is unknown whether the
	// refresh token was used up.
	pe.Kind = FailureUnanswered
	switch {
	case readErr != nil:
		pe.Reason, pe.Because = readErr.Error(), cause.Of(readErr)
	case !a.readable:
		pe.Reason = "the response is neither a JSON object nor a form"
	case a.access != "":
		pe.Kind, pe.Reason = FailureOperator, "the token type is not Bearer"
	default:
		pe.Reason = "the response has no access_token"
	}
	if a.refresh != "" {
		return &partialTokenResponse{cause: pe, refresh: a.refresh}
	}
	return pe
}

// partialTokenResponse is a response of which only the refresh token can be used. Without that
// token the session would be lost.
type partialTokenResponse struct {
	cause   *Error
	refresh string
}

// Error returns the text of the cause.
func (p *partialTokenResponse) Error() string { return p.cause.Error() }

// Unwrap returns the cause.
func (p *partialTokenResponse) Unwrap() error { return p.cause }

// plain returns the response as RFC 6749 section 5.1 specifies it.
func (a *tokenResponse) plain() map[string]any {
	plain := map[string]any{"access_token": a.access, "token_type": "Bearer"}
	if a.refresh != "" {
		plain["refresh_token"] = a.refresh
	}
	if a.scope != "" {
		plain["scope"] = a.scope
	}
	if a.expiresIn > 0 {
		plain["expires_in"] = a.expiresIn
	}
	return plain
}

// jsonText returns the text of a JSON string, or an empty text for another JSON value.
func jsonText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) != nil {
		return ""
	}
	return text
}

// tokenText returns a token, or an empty text if it contains bytes that RFC 6749 appendix A
// does not allow: they would end up in a header.
func tokenText(text string) string {
	if !isVisibleText(text) {
		return ""
	}
	return text
}

// parseExpiresIn reads a number of seconds, written as an integer, a fraction or a string. It
// returns 0 for everything else, and for numbers below 0.
func parseExpiresIn(text string) int64 {
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(seconds) || seconds < 1 {
		return 0
	}
	return int64(min(seconds, maxExpiresIn))
}
