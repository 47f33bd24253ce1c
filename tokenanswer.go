package tollgate

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
)

// maxExpiresIn clamps expires_in, in seconds. Nothing honest lives longer than a
// year, and a larger number would overflow a duration.
const maxExpiresIn = 366 * 24 * 60 * 60

// tokenAnswers stands between x/oauth2 and the network. x/oauth2 retries nothing
// here, since the client authentication is fixed; but it gives up a whole answer,
// with the rotated refresh token in it, over an odd expires_in, puts bodies into
// error texts, and takes tokens that hold control bytes. So every answer is read,
// bounded and judged here: a good one is passed on in its plainest form, anything
// else becomes a *providerError.
type tokenAnswers struct {
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *tokenAnswers) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent atomic.Bool
	res, err := t.next.RoundTrip(req.WithContext(withSentTrace(req.Context(), &sent)))
	if err != nil {
		kind := failureTransient
		if sent.Load() {
			kind = failureUnanswered
		}
		return nil, &providerError{endpoint: endpointToken, kind: kind, reason: transportReason(err)}
	}
	body, readErr := readAnswer(res.Body)
	res.Body.Close()
	answer := parseTokenAnswer(body)
	if err := answer.judge(res.StatusCode, readErr); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(answer.plain())
	if err != nil {
		return nil, &providerError{endpoint: endpointToken, kind: failureUnanswered, reason: "the answer cannot be passed on"}
	}
	res.Header = http.Header{"Content-Type": {"application/json"}}
	res.Body = io.NopCloser(bytes.NewReader(plain))
	res.ContentLength = int64(len(plain))
	return res, nil
}

// tokenAnswer is what could be read of a token endpoint's answer.
type tokenAnswer struct {
	access    string
	refresh   string
	tokenType string
	scope     string
	expiresIn int64 // seconds; 0 where nothing usable was said
	errorCode string
	refused   bool // success:false
	isObject  bool
}

// parseTokenAnswer reads member by member and keeps what came before the first
// fault, so that a refresh token survives an answer that is broken further on.
func parseTokenAnswer(body []byte) tokenAnswer {
	var a tokenAnswer
	d := json.NewDecoder(bytes.NewReader(body))
	if opening, err := d.Token(); err != nil || opening != json.Delim('{') {
		return a
	}
	a.isObject = true
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return a
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return a
		}
		a.take(name, value)
	}
	return a
}

func (a *tokenAnswer) take(name json.Token, value json.RawMessage) {
	switch name {
	case "access_token":
		a.access = tokenText(value)
	case "refresh_token":
		a.refresh = tokenText(value)
	case "token_type":
		a.tokenType = jsonText(value)
	case "scope":
		a.scope = jsonText(value)
	case "error":
		a.errorCode = jsonText(value)
	case "success":
		a.refused = string(value) == "false"
	case "expires_in":
		a.expiresIn = parseExpiresIn(value)
	}
}

// judge says what the answer is worth, in this order: the status and the body's
// own error, then whether it holds an access token.
func (a *tokenAnswer) judge(status int, readErr error) error {
	pe := &providerError{endpoint: endpointToken, status: status}
	kind, known := tokenErrorCodes[a.errorCode]
	switch {
	case known:
		pe.kind, pe.code, pe.reason = kind, a.errorCode, "refused"
		return pe
	case a.errorCode != "" || a.refused:
		pe.reason = "refused without a known error code"
		return pe
	case status == http.StatusUnauthorized:
		pe.kind, pe.reason = failureOperator, "the client authentication is not accepted"
		return pe
	case status != http.StatusOK && status != http.StatusCreated:
		pe.reason = "status " + strconv.Itoa(status)
		return pe
	case a.access != "" && (a.tokenType == "" || strings.EqualFold(a.tokenType, "bearer")):
		return nil
	}

	// The provider said yes, but not in words that can be used. Whether the
	// refresh token was spent cannot be known.
	pe.kind = failureUnanswered
	switch {
	case readErr != nil:
		pe.reason = readErr.Error()
	case !a.isObject:
		pe.reason = "the answer is not a JSON object"
	case a.access != "":
		pe.kind, pe.reason = failureOperator, "the token type is not Bearer"
	default:
		pe.reason = "the answer has no access_token"
	}
	if a.refresh != "" {
		return &partialTokenAnswer{providerError: pe, refresh: a.refresh}
	}
	return pe
}

// partialTokenAnswer is an answer of which only the refresh token can be used.
// Losing that would lose the session.
type partialTokenAnswer struct {
	*providerError
	refresh string
}

func (p *partialTokenAnswer) Unwrap() error { return p.providerError }

// plain is the answer as RFC 6749 section 5.1 writes it.
func (a *tokenAnswer) plain() map[string]any {
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

func jsonText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) != nil {
		return ""
	}
	return text
}

// tokenText is a token, or nothing where it holds bytes that RFC 6749 appendix A
// does not allow: those would end up in a header.
func tokenText(value json.RawMessage) string {
	text := jsonText(value)
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return ""
		}
	}
	return text
}

// parseExpiresIn reads a number of seconds, written as a number, a fraction or a
// string. Zero, less than zero and everything else is nothing usable.
func parseExpiresIn(value json.RawMessage) int64 {
	text := string(value)
	if len(value) > 0 && value[0] == '"' {
		text = strings.TrimSpace(jsonText(value))
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 1 {
		return 0
	}
	return int64(min(seconds, maxExpiresIn))
}
