package oauth

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
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
// error texts, takes tokens that hold control bytes, and asks for no JSON. So every
// answer is asked for, read, bounded and judged here: a good one is passed on in its
// plainest form, anything else becomes a *Error.
type tokenAnswers struct {
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *tokenAnswers) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent atomic.Bool
	req = req.Clone(withSentTrace(req.Context(), &sent))
	// GitHub's endpoint, and others of its time, answer in a form without this.
	req.Header.Set("Accept", acceptedType)
	res, err := t.next.RoundTrip(req)
	if err != nil {
		kind := FailureTransient
		if sent.Load() {
			kind = FailureUnanswered
		}
		return nil, &Error{Endpoint: EndpointToken, Kind: kind, Reason: transportReason(err)}
	}
	body, readErr := readAnswer(res.Body)
	res.Body.Close()
	answer := parseTokenAnswer(body, readErr == nil)
	if err := answer.judge(res.StatusCode, readErr); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(answer.plain())
	if err != nil {
		return nil, &Error{Endpoint: EndpointToken, Kind: FailureUnanswered, Reason: "the answer cannot be passed on"}
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
	readable  bool // a JSON object, or a form with at least one of these members
}

// parseTokenAnswer reads a JSON object, or a form, whatever Content-Type says. It keeps
// what came before the first fault, so that a refresh token survives an answer that is
// broken further on. Whole is false where the body may have been cut off.
func parseTokenAnswer(body []byte, whole bool) tokenAnswer {
	if isForm(body) {
		return parseTokenForm(string(body), whole)
	}
	var a tokenAnswer
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

// isForm reports whether a body is rather a form than JSON or HTML: names and values
// begin with other characters than these do, with or without blanks in front.
func isForm(body []byte) bool {
	begin := bytes.TrimLeft(body, " \t\r\n\ufeff")
	return len(begin) > 0 && bytes.IndexByte([]byte("{[<\""), begin[0]) < 0
}

// parseTokenForm reads a form pair by pair, in the same way. A form has no end mark: of
// one that may have been cut off the last pair is not read, since half a token reads
// like a whole one.
func parseTokenForm(body string, whole bool) tokenAnswer {
	var a tokenAnswer
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

func (a *tokenAnswer) takeJSON(name json.Token, value json.RawMessage) {
	text := jsonText(value)
	if len(value) > 0 && value[0] != '"' && (name == "expires_in" || name == "success") {
		text = string(value)
	}
	if name, ok := name.(string); ok {
		a.take(name, text)
	}
}

// take notes one member, and reports whether it is one that counts.
func (a *tokenAnswer) take(name, text string) bool {
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

// judge says what the answer is worth, in this order: the status and the body's
// own error, then whether it holds an access token.
func (a *tokenAnswer) judge(status int, readErr error) error {
	pe := &Error{Endpoint: EndpointToken, Status: status}
	code, known := tokenErrorCodes[a.errorCode]
	outage := isOutage(status)
	switch {
	case known && (code.final || !outage):
		pe.Kind, pe.Code, pe.Reason = code.kind, code.name, "refused"
		return pe
	case outage:
		pe.Reason = "status " + strconv.Itoa(status)
		return pe
	case status == http.StatusUnauthorized:
		pe.Kind, pe.Reason = FailureOperator, "the client authentication is not accepted"
		return pe
	case a.errorCode != "" || a.refused:
		pe.Kind, pe.Reason = FailureRefused, "refused without a known error code"
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

	// The provider said yes, but not in words that can be used. Whether the
	// refresh token was spent cannot be known.
	pe.Kind = FailureUnanswered
	switch {
	case readErr != nil:
		pe.Reason = readErr.Error()
	case !a.readable:
		pe.Reason = "the answer is neither a JSON object nor a form"
	case a.access != "":
		pe.Kind, pe.Reason = FailureOperator, "the token type is not Bearer"
	default:
		pe.Reason = "the answer has no access_token"
	}
	if a.refresh != "" {
		return &partialTokenAnswer{cause: pe, refresh: a.refresh}
	}
	return pe
}

// partialTokenAnswer is an answer of which only the refresh token can be used.
// Losing that would lose the session.
type partialTokenAnswer struct {
	cause   *Error
	refresh string
}

func (p *partialTokenAnswer) Error() string { return p.cause.Error() }

func (p *partialTokenAnswer) Unwrap() error { return p.cause }

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

// jsonText is the text of a JSON string, or nothing for any other value.
func jsonText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) != nil {
		return ""
	}
	return text
}

// tokenText is a token, or nothing where it holds bytes that RFC 6749 appendix A
// does not allow: those would end up in a header.
func tokenText(text string) string {
	if !isVisibleText(text) {
		return ""
	}
	return text
}

// parseExpiresIn reads a number of seconds, written as a number, a fraction or a
// string. Zero, less than zero and everything else is nothing usable.
func parseExpiresIn(text string) int64 {
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(seconds) || seconds < 1 {
		return 0
	}
	return int64(min(seconds, maxExpiresIn))
}
