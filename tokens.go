package tollgate

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
)

// tokens are what the token endpoint gave for one session.
type tokens struct {
	access  string
	refresh string
	// scope is what was granted, where the provider said so.
	scope string
	// issued and expires bound the access token's life.
	issued  time.Time
	expires time.Time
}

// valid reports whether the access token may still be used.
func (t tokens) valid(now time.Time) bool { return now.Before(t.expires) }

// refreshable reports whether there is a refresh token at all.
func (t tokens) refreshable() bool { return t.refresh != "" }

// providerEndpoint names an endpoint in errors and logs.
type providerEndpoint string

const (
	endpointToken      providerEndpoint = "token"
	endpointUserinfo   providerEndpoint = "userinfo"
	endpointBalance    providerEndpoint = "balance"
	endpointTopup      providerEndpoint = "topup"
	endpointRevocation providerEndpoint = "revocation"
)

// failure says what a provider's failure means for the session.
type failure int

const (
	// failureTransient: the provider did not do it, and may do it later.
	failureTransient failure = iota
	// failureUnanswered: the request went out and no whole answer came back, so
	// nobody knows whether it was done.
	failureUnanswered
	// failureOperator: the provider refuses this client, not this user.
	failureOperator
	// failureEnded: the grant is over (`invalid_grant`).
	failureEnded
	// failureUnauthorized: the access token is not accepted.
	failureUnauthorized
	// failureRefused: a definite no that speaks neither of the grant nor of the client.
	// Waiting does not change it; a new sign-in may.
	failureRefused
)

// providerError is a request to the provider that failed. Its text never holds
// anything that the provider sent but a known error code.
type providerError struct {
	endpoint providerEndpoint
	kind     failure
	status   int    // 0 without an answer
	code     string // error code of RFC 6749, where the answer means one of those
	reason   string
}

func (e *providerError) Error() string {
	var b strings.Builder
	b.WriteString("asking the provider's " + string(e.endpoint) + " endpoint: " + e.reason)
	if e.code != "" {
		b.WriteString(" (" + e.code + ")")
	}
	return b.String()
}

// failureOf is what err means; an error of another kind counts as transient.
func failureOf(err error) failure {
	if pe, ok := errors.AsType[*providerError](err); ok {
		return pe.kind
	}
	return failureTransient
}

// isRefusedRefresh reports whether a refresh was answered with a definite no that does
// not end the session, and that no operator can mend at once.
func isRefusedRefresh(err error) bool {
	pe, ok := errors.AsType[*providerError](err)
	return ok && pe.endpoint == endpointToken && pe.kind == failureRefused
}

// tokenErrorCode is what an error code of the token endpoint means for a session.
type tokenErrorCode struct {
	name string // in RFC 6749
	kind failure
	// final: it counts under a status that speaks of an outage, too.
	final bool
}

// tokenErrorCodes are the codes of RFC 6749 section 5.2, GitHub's words for two of them,
// and the codes that ask for patience. Only `invalid_grant` ends a session: dex also
// answers `invalid_request` while its storage is away. `invalid_client` and
// `unauthorized_client` complain about this client, which a new sign-in would not mend.
var tokenErrorCodes = map[string]tokenErrorCode{
	"invalid_grant":                {"invalid_grant", failureEnded, true},
	"bad_verification_code":        {"invalid_grant", failureEnded, true},
	"invalid_client":               {"invalid_client", failureOperator, true},
	"incorrect_client_credentials": {"invalid_client", failureOperator, true},
	"unauthorized_client":          {"unauthorized_client", failureOperator, true},
	"invalid_request":              {"invalid_request", failureRefused, false},
	"unsupported_grant_type":       {"unsupported_grant_type", failureRefused, false},
	"invalid_scope":                {"invalid_scope", failureRefused, false},
	"temporarily_unavailable":      {"temporarily_unavailable", failureTransient, true},
	"server_error":                 {"server_error", failureTransient, true},
	"slow_down":                    {"", failureTransient, true},
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

// maxAnswer bounds every answer of the provider, in bytes. The largest honest one
// is a token answer of a few kilobytes.
const maxAnswer = 256 << 10

// oauthClient asks the provider. It is the only thing that does, and all its
// requests go through one http.Client.
type oauthClient struct {
	config          oauth2.Config
	authorizeParams []oauth2.AuthCodeOption
	// logoutParams are sent with the first sign-in after a logout.
	logoutParams  []oauth2.AuthCodeOption
	pkce          bool
	autoAuthorize bool

	userinfoEndpoint   string
	balanceEndpoint    string
	topupEndpoint      string
	topupHosts         []string // with their ports; nil: any
	revocationEndpoint string
	issuer             string // of RFC 9207; empty: not configured
	fields             fieldPaths

	tokenLifetime time.Duration
	timeout       time.Duration
	http          *http.Client
	now           func() time.Time
}

// newProviderClient is the http.Client for every request to the provider. It follows no
// redirect: a 307 from the token endpoint would carry the client secret and the
// refresh token to wherever it points. Nothing sets an Idempotency-Key, which
// would make Go's transport send a refresh twice.
func newProviderClient(timeout time.Duration) *http.Client {
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

// authorizationURL is where the browser goes to sign in (RFC 6749 section 4.1.1,
// RFC 7636 section 4.3).
func (c *oauthClient) authorizationURL(state, verifier string, signedOut bool) string {
	options := slices.Clone(c.authorizeParams)
	if c.pkce {
		options = append(options, oauth2.S256ChallengeOption(verifier))
	}
	switch {
	case signedOut: // last, so that they win over authorize_param
		options = append(options, c.logoutParams...)
	case c.autoAuthorize:
		options = append(options, oauth2.SetAuthURLParam("auto_authorize", "true"))
	}
	return c.config.AuthCodeURL(state, options...)
}

// exchange gives tokens for an authorization code (RFC 6749 section 4.1.3). A code
// is sent once: after an ambiguous failure the user signs in anew.
func (c *oauthClient) exchange(ctx context.Context, code, verifier string) (tokens, error) {
	var options []oauth2.AuthCodeOption
	if c.pkce {
		options = append(options, oauth2.VerifierOption(verifier))
	}
	asked := c.now()
	return c.requestTokens(ctx, tokens{}, asked, func(ctx context.Context) (*oauth2.Token, error) {
		return c.config.Exchange(ctx, code, options...)
	})
}

// refresh spends old's refresh token (RFC 6749 section 6). The request goes out
// exactly once.
//
// With an error the result may still differ from old: a rotated refresh token is
// kept even when the rest of the answer was of no use.
func (c *oauthClient) refresh(ctx context.Context, old tokens) (tokens, error) {
	asked := c.now()
	return c.requestTokens(ctx, old, asked, func(ctx context.Context) (*oauth2.Token, error) {
		return c.config.TokenSource(ctx, &oauth2.Token{RefreshToken: old.refresh}).Token()
	})
}

// requestTokens runs one request to the token endpoint and reads its answer.
func (c *oauthClient) requestTokens(ctx context.Context, old tokens, asked time.Time, ask func(context.Context) (*oauth2.Token, error)) (tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	client := *c.http
	client.Transport = &tokenAnswers{next: c.http.Transport}
	answer, err := ask(context.WithValue(ctx, oauth2.HTTPClient, &client))
	if err != nil {
		if partial, ok := errors.AsType[*partialTokenAnswer](err); ok && old.refreshable() {
			old.refresh = partial.refresh
			return old, partial.cause
		}
		if pe, ok := errors.AsType[*providerError](err); ok {
			return old, pe
		}
		return old, &providerError{endpoint: endpointToken, kind: failureUnanswered, reason: "no usable answer"}
	}
	return c.newTokens(old, answer, asked), nil
}

// newTokens turns an answer into tokens. An answer without a refresh token leaves
// the old one in force (RFC 6749 section 6), one without a scope the old scope.
func (c *oauthClient) newTokens(old tokens, answer *oauth2.Token, asked time.Time) tokens {
	lifetime := c.tokenLifetime
	if answer.ExpiresIn > 0 {
		lifetime = time.Duration(min(answer.ExpiresIn, maxExpiresIn)) * time.Second
	}
	t := tokens{
		access:  answer.AccessToken,
		refresh: answer.RefreshToken,
		scope:   old.scope,
		issued:  asked,
		expires: asked.Add(lifetime),
	}
	if scope, ok := answer.Extra("scope").(string); ok && scope != "" {
		t.scope = scope
	}
	return t
}

// userInfo reads the user information, and the balance where it has an endpoint of
// its own. An access token that is not accepted gives failureUnauthorized.
func (c *oauthClient) userInfo(ctx context.Context, access string) (userInfo, error) {
	asked := c.now()
	body, err := c.get(ctx, endpointUserinfo, c.userinfoEndpoint, access)
	if err != nil {
		return userInfo{}, err
	}
	u, err := parseUserInfo(body, c.fields, asked)
	if err != nil {
		return userInfo{}, answerError(endpointUserinfo, err)
	}
	if c.balanceEndpoint == "" {
		return u, nil
	}
	if body, err = c.get(ctx, endpointBalance, c.balanceEndpoint, access); err != nil {
		return userInfo{}, err
	}
	if err := u.addBalance(body, c.fields); err != nil {
		return userInfo{}, answerError(endpointBalance, err)
	}
	return u, nil
}

// answerError is the failure of an answer that came under a good status. A
// refusal in the body, or an answer about nobody, counts as a 401.
func answerError(endpoint providerEndpoint, err error) error {
	kind := failureTransient
	if errors.Is(err, errUserInfoRefused) || errors.Is(err, errUserInfoNoID) {
		kind = failureUnauthorized
	}
	return &providerError{endpoint: endpoint, kind: kind, status: http.StatusOK, reason: err.Error()}
}

// get asks a resource endpoint with the access token in the header
// (RFC 6750 section 2.1).
func (c *oauthClient) get(ctx context.Context, endpoint providerEndpoint, address, access string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, &providerError{endpoint: endpoint, kind: failureOperator, reason: "the endpoint's URL cannot be used"}
	}
	req.Header.Set("Authorization", "Bearer "+access)
	req.Header.Set("Accept", acceptedType)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, &providerError{endpoint: endpoint, reason: transportReason(err)}
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		return nil, &providerError{endpoint: endpoint, kind: failureUnauthorized, status: res.StatusCode, reason: "the access token is not accepted"}
	case res.StatusCode >= 400 && !isOutage(res.StatusCode):
		return nil, &providerError{endpoint: endpoint, kind: failureRefused, status: res.StatusCode, reason: "refused with status " + http.StatusText(res.StatusCode)}
	case res.StatusCode != http.StatusOK:
		return nil, &providerError{endpoint: endpoint, status: res.StatusCode, reason: "status " + http.StatusText(res.StatusCode)}
	}
	body, err := readAnswer(res.Body)
	if err != nil {
		return nil, &providerError{endpoint: endpoint, status: res.StatusCode, reason: err.Error()}
	}
	return body, nil
}

// revoke tells the provider to forget a refresh token (RFC 7009). It is a
// courtesy: the session is over whatever the answer is.
func (c *oauthClient) revoke(ctx context.Context, refresh string) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	form := url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}}
	inHeader := c.config.Endpoint.AuthStyle == oauth2.AuthStyleInHeader
	if !inHeader {
		form.Set("client_id", c.config.ClientID)
		if c.config.ClientSecret != "" {
			form.Set("client_secret", c.config.ClientSecret)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.revocationEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return &providerError{endpoint: endpointRevocation, kind: failureOperator, reason: "the endpoint's URL cannot be used"}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", acceptedType)
	if inHeader {
		req.SetBasicAuth(url.QueryEscape(c.config.ClientID), url.QueryEscape(c.config.ClientSecret))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return &providerError{endpoint: endpointRevocation, reason: transportReason(err)}
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return &providerError{endpoint: endpointRevocation, status: res.StatusCode, reason: "status " + http.StatusText(res.StatusCode)}
	}
	return nil
}

var errAnswerTooLong = errors.New("the answer is too long")

// readAnswer reads a whole answer, within maxAnswer.
func readAnswer(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err != nil {
		return body, errors.New("the answer was cut off")
	}
	if len(body) > maxAnswer {
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
