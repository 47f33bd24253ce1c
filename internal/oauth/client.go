// Package oauth is the OAuth 2.0 client: it sends every request that the gateway makes to
// the provider, and says what the responses mean for a session.
//
// Responses are bounded, read field by field, and never quoted in an error. The package
// keeps no state between requests and knows no session. Begin with Client.
package oauth

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/oauth2"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// IsIssuer checks the issuer of RFC 9207, where the provider names one: it must be the
// configured one, to the letter (section 2.4), or without one be on a host that this
// client was configured for.
func (c *Client) IsIssuer(issuer string) bool {
	switch {
	case issuer == "":
		return true
	case c.Issuer != "":
		return issuer == c.Issuer
	}
	u, err := url.Parse(issuer)
	if err != nil || !origin.IsSecure(u) {
		return false
	}
	for _, endpoint := range []string{c.Config.Endpoint.AuthURL, c.Config.Endpoint.TokenURL, c.UserinfoEndpoint} {
		if known, err := url.Parse(endpoint); err == nil && origin.Of(known) == origin.Of(u) {
			return true
		}
	}
	return false
}

// Tokens are what the token endpoint gave for one session.
type Tokens struct {
	Access  string
	Refresh string
	// Scope is what was granted, where the provider said so.
	Scope string
	// Issued and expires bound the access token's life.
	Issued  time.Time
	Expires time.Time
}

// Valid reports whether the access token may still be used.
func (t Tokens) Valid(now time.Time) bool { return now.Before(t.Expires) }

// Refreshable reports whether there is a refresh token at all.
func (t Tokens) Refreshable() bool { return t.Refresh != "" }

// providerEndpoint names an endpoint in errors and logs.
type providerEndpoint string

const (
	EndpointToken      providerEndpoint = "token"
	EndpointUserinfo   providerEndpoint = "userinfo"
	endpointBalance    providerEndpoint = "balance"
	endpointTopup      providerEndpoint = "topup"
	endpointRevocation providerEndpoint = "revocation"
)

// Failure says what a provider's failure means for the session.
type Failure int

const (
	// FailureTransient: the provider did not do it, and may do it later.
	FailureTransient Failure = iota
	// FailureUnanswered: the request went out and no whole answer came back, so
	// nobody knows whether it was done.
	FailureUnanswered
	// FailureOperator: the provider refuses this client, not this user.
	FailureOperator
	// FailureEnded: the grant is over (`invalid_grant`).
	FailureEnded
	// FailureUnauthorized: the access token is not accepted.
	FailureUnauthorized
	// FailureRefused: a definite no that speaks neither of the grant nor of the client.
	// Waiting does not change it; a new sign-in may.
	FailureRefused
)

// Error is a request to the provider that failed. Its text never holds
// anything that the provider sent but a known error code.
type Error struct {
	Endpoint providerEndpoint
	Kind     Failure
	Status   int    // 0 without an answer
	Code     string // error code of RFC 6749, where the answer means one of those
	Reason   string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("asking the provider's " + string(e.Endpoint) + " endpoint: " + e.Reason)
	if e.Code != "" {
		b.WriteString(" (" + e.Code + ")")
	}
	return b.String()
}

// FailureOf is what err means; an error of another kind counts as transient.
func FailureOf(err error) Failure {
	if pe, ok := errors.AsType[*Error](err); ok {
		return pe.Kind
	}
	return FailureTransient
}

// IsRefusedRefresh reports whether a refresh was answered with a definite no that does
// not end the session, and that no operator can mend at once.
func IsRefusedRefresh(err error) bool {
	pe, ok := errors.AsType[*Error](err)
	return ok && pe.Endpoint == EndpointToken && pe.Kind == FailureRefused
}

// tokenErrorCode is what an error code of the token endpoint means for a session.
type tokenErrorCode struct {
	name string // in RFC 6749
	kind Failure
	// final: it counts under a status that speaks of an outage, too.
	final bool
}

// tokenErrorCodes are the codes of RFC 6749 section 5.2, GitHub's words for two of them,
// and the codes that ask for patience. Only `invalid_grant` ends a session: dex also
// answers `invalid_request` while its storage is away. `invalid_client` and
// `unauthorized_client` complain about this client, which a new sign-in would not mend.
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

// isOutage reports whether a status says that the provider cannot answer now, and so
// nothing about the question: 5xx, and those that ask to come back later.
func isOutage(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// acceptedType is what every request asks for. Some providers answer in a form otherwise.
const acceptedType = "application/json"

// MaxAnswer bounds every answer of the provider, in bytes. The largest honest one
// is a token answer of a few kilobytes.
const MaxAnswer = 256 << 10

// Client asks the provider. It is the only thing that does, and all its
// requests go through one http.Client.
type Client struct {
	Config          oauth2.Config
	AuthorizeParams []oauth2.AuthCodeOption
	// LogoutParams are sent with the first sign-in after a logout.
	LogoutParams  []oauth2.AuthCodeOption
	PKCE          bool
	AutoAuthorize bool

	UserinfoEndpoint   string
	BalanceEndpoint    string
	TopupEndpoint      string
	TopupHosts         []string // with their ports; nil: any
	RevocationEndpoint string
	Issuer             string // of RFC 9207; empty: not configured
	Fields             FieldPaths

	TokenLifetime time.Duration
	Timeout       time.Duration
	httpClient    *http.Client
	now           func() time.Time
}

// NewClient returns a client whose requests take at most timeout each, and which reads
// the time from now. The caller sets the other fields before the first request.
func NewClient(timeout time.Duration, now func() time.Time) *Client {
	return &Client{Timeout: timeout, httpClient: NewHTTPClient(timeout), now: now}
}

// Close closes the connections to the provider that are idle.
func (c *Client) Close() { c.httpClient.CloseIdleConnections() }

// NewHTTPClient is the http.Client for every request to the provider. It follows no
// redirect: a 307 from the token endpoint would carry the client secret and the
// refresh token to wherever it points. Nothing sets an Idempotency-Key, which
// would make Go's transport send a refresh twice.
func NewHTTPClient(timeout time.Duration) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.MaxIdleConnsPerHost = 32
	return &http.Client{
		Transport: transport,
		Timeout:   timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// AuthorizationURL is where the browser goes to sign in (RFC 6749 section 4.1.1,
// RFC 7636 section 4.3).
func (c *Client) AuthorizationURL(state, verifier string, signedOut bool) string {
	options := slices.Clone(c.AuthorizeParams)
	if c.PKCE {
		options = append(options, oauth2.S256ChallengeOption(verifier))
	}
	switch {
	case signedOut: // last, so that they win over authorize_param
		options = append(options, c.LogoutParams...)
	case c.AutoAuthorize:
		options = append(options, oauth2.SetAuthURLParam("auto_authorize", "true"))
	}
	return c.Config.AuthCodeURL(state, options...)
}

// Exchange gives tokens for an authorization code (RFC 6749 section 4.1.3). A code
// is sent once: after an ambiguous failure the user signs in anew.
func (c *Client) Exchange(ctx context.Context, code, verifier string) (Tokens, error) {
	var options []oauth2.AuthCodeOption
	if c.PKCE {
		options = append(options, oauth2.VerifierOption(verifier))
	}
	asked := c.now()
	return c.requestTokens(ctx, Tokens{}, asked, func(ctx context.Context) (*oauth2.Token, error) {
		return c.Config.Exchange(ctx, code, options...)
	})
}

// Refresh spends old's refresh token (RFC 6749 section 6). The request goes out
// exactly once.
//
// With an error the result may still differ from old: a rotated refresh token is
// kept even when the rest of the answer was of no use.
func (c *Client) Refresh(ctx context.Context, old Tokens) (Tokens, error) {
	asked := c.now()
	return c.requestTokens(ctx, old, asked, func(ctx context.Context) (*oauth2.Token, error) {
		return c.Config.TokenSource(ctx, &oauth2.Token{RefreshToken: old.Refresh}).Token()
	})
}

// requestTokens runs one request to the token endpoint and reads its answer.
func (c *Client) requestTokens(ctx context.Context, old Tokens, asked time.Time, ask func(context.Context) (*oauth2.Token, error)) (Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	client := *c.httpClient
	client.Transport = &tokenAnswers{next: c.httpClient.Transport}
	answer, err := ask(context.WithValue(ctx, oauth2.HTTPClient, &client))
	if err != nil {
		if partial, ok := errors.AsType[*partialTokenAnswer](err); ok && old.Refreshable() {
			old.Refresh = partial.refresh
			return old, partial.cause
		}
		if pe, ok := errors.AsType[*Error](err); ok {
			return old, pe
		}
		return old, &Error{Endpoint: EndpointToken, Kind: FailureUnanswered, Reason: "no usable answer"}
	}
	return c.newTokens(old, answer, asked), nil
}

// newTokens turns an answer into tokens. An answer without a refresh token leaves
// the old one in force (RFC 6749 section 6), one without a scope the old scope.
func (c *Client) newTokens(old Tokens, answer *oauth2.Token, asked time.Time) Tokens {
	lifetime := c.TokenLifetime
	if answer.ExpiresIn > 0 {
		lifetime = time.Duration(min(answer.ExpiresIn, maxExpiresIn)) * time.Second
	}
	t := Tokens{
		Access:  answer.AccessToken,
		Refresh: answer.RefreshToken,
		Scope:   old.Scope,
		Issued:  asked,
		Expires: asked.Add(lifetime),
	}
	if scope, ok := answer.Extra("scope").(string); ok && scope != "" {
		t.Scope = scope
	}
	return t
}

// UserInfo reads the user information, and the balance where it has an endpoint of
// its own. An access token that is not accepted gives FailureUnauthorized.
func (c *Client) UserInfo(ctx context.Context, access string) (UserInfo, error) {
	asked := c.now()
	body, err := c.get(ctx, EndpointUserinfo, c.UserinfoEndpoint, access)
	if err != nil {
		return UserInfo{}, err
	}
	u, err := parseUserInfo(body, c.Fields, asked)
	if err != nil {
		return UserInfo{}, answerError(EndpointUserinfo, err)
	}
	if c.BalanceEndpoint == "" {
		return u, nil
	}
	if body, err = c.get(ctx, endpointBalance, c.BalanceEndpoint, access); err != nil {
		return UserInfo{}, err
	}
	if err := u.addBalance(body, c.Fields); err != nil {
		return UserInfo{}, answerError(endpointBalance, err)
	}
	return u, nil
}

// answerError is the failure of an answer that came under a good status. A
// refusal in the body, or an answer about nobody, counts as a 401.
func answerError(endpoint providerEndpoint, err error) error {
	kind := FailureTransient
	if errors.Is(err, errUserInfoRefused) || errors.Is(err, errUserInfoNoID) {
		kind = FailureUnauthorized
	}
	return &Error{Endpoint: endpoint, Kind: kind, Status: http.StatusOK, Reason: err.Error()}
}

// get asks a resource endpoint with the access token in the header
// (RFC 6750 section 2.1).
func (c *Client) get(ctx context.Context, endpoint providerEndpoint, address, access string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, &Error{Endpoint: endpoint, Kind: FailureOperator, Reason: "the endpoint's URL cannot be used"}
	}
	req.Header.Set("Authorization", "Bearer "+access)
	req.Header.Set("Accept", acceptedType)
	res, err := c.httpClient.Do(req)
	if err != nil {
		return nil, &Error{Endpoint: endpoint, Reason: transportReason(err)}
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		return nil, &Error{Endpoint: endpoint, Kind: FailureUnauthorized, Status: res.StatusCode, Reason: "the access token is not accepted"}
	case res.StatusCode >= 400 && !isOutage(res.StatusCode):
		return nil, &Error{Endpoint: endpoint, Kind: FailureRefused, Status: res.StatusCode, Reason: "refused with status " + http.StatusText(res.StatusCode)}
	case res.StatusCode != http.StatusOK:
		return nil, &Error{Endpoint: endpoint, Status: res.StatusCode, Reason: "status " + http.StatusText(res.StatusCode)}
	}
	body, err := readAnswer(res.Body)
	if err != nil {
		return nil, &Error{Endpoint: endpoint, Status: res.StatusCode, Reason: err.Error()}
	}
	return body, nil
}

// Revoke tells the provider to forget a refresh token (RFC 7009). It is a
// courtesy: the session is over whatever the answer is.
func (c *Client) Revoke(ctx context.Context, refresh string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	form := url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}}
	inHeader := c.Config.Endpoint.AuthStyle == oauth2.AuthStyleInHeader
	if !inHeader {
		form.Set("client_id", c.Config.ClientID)
		if c.Config.ClientSecret != "" {
			form.Set("client_secret", c.Config.ClientSecret)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.RevocationEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return &Error{Endpoint: endpointRevocation, Kind: FailureOperator, Reason: "the endpoint's URL cannot be used"}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", acceptedType)
	if inHeader {
		req.SetBasicAuth(url.QueryEscape(c.Config.ClientID), url.QueryEscape(c.Config.ClientSecret))
	}
	res, err := c.httpClient.Do(req)
	if err != nil {
		return &Error{Endpoint: endpointRevocation, Reason: transportReason(err)}
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return &Error{Endpoint: endpointRevocation, Status: res.StatusCode, Reason: "status " + http.StatusText(res.StatusCode)}
	}
	return nil
}

var errAnswerTooLong = errors.New("the answer is too long")

// readAnswer reads a whole answer, within MaxAnswer.
func readAnswer(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, MaxAnswer+1))
	if err != nil {
		return body, errors.New("the answer was cut off")
	}
	if len(body) > MaxAnswer {
		return nil, errAnswerTooLong
	}
	return body, nil
}

// transportReason is why a request got no answer, without the URL and without
// anything the other side sent.
func transportReason(err error) string {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		if ue.Timeout() {
			return "no answer in time"
		}
		err = ue.Err
	}
	if errors.Is(err, context.Canceled) {
		return "the request was given up"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return "the connection was cut"
	}
	// Only errors of this side have their words repeated: a protocol error quotes what
	// was received.
	if oe, ok := errors.AsType[*net.OpError](err); ok {
		return "no connection: " + oe.Error()
	}
	if ce, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "no secure connection: " + ce.Error()
	}
	return "the answer is not HTTP, or not secure"
}

// withSentTrace gives a context that notes in *sent whether a request's header
// went out: only before that can one be sure that nothing was done with it.
func withSentTrace(ctx context.Context, sent *atomic.Bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
	})
}
