// Package oauth is the OAuth 2.0 client: it sends every request of the gateway to the provider,
// and decides what the responses mean for a session.
//
// Responses have a maximum size, are read field by field, and are never quoted in an error. The
// package keeps no state between requests, and does not know sessions. Begin with Client.
package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// IsIssuer checks the issuer of RFC 9207, if the provider sent one. It must be equal to the
// configured issuer (section 2.4). If none is configured, it must be on a host that this client
// is configured for.
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

// Tokens are the tokens of one session.
type Tokens struct {
	Access  string
	Refresh string
	// Scope is the granted scope, if the provider sent one.
	Scope string
	// The access token is valid from Issued until Expires.
	Issued  time.Time
	Expires time.Time
}

// Valid reports whether the access token may still be used.
func (t Tokens) Valid(now time.Time) bool { return now.Before(t.Expires) }

// Refreshable reports whether there is a refresh token.
func (t Tokens) Refreshable() bool { return t.Refresh != "" }

// providerEndpoint names an endpoint in errors and logs.
type providerEndpoint string

// The endpoints of the provider.
const (
	EndpointToken      providerEndpoint = "token"
	EndpointUserinfo   providerEndpoint = "userinfo"
	endpointBalance    providerEndpoint = "balance"
	endpointTopup      providerEndpoint = "topup"
	endpointRevocation providerEndpoint = "revocation"
)

// acceptedType is the Accept header of every request. Without it some providers send a form.
const acceptedType = "application/json"

// Client sends all requests to the provider, through one http.Client.
type Client struct {
	Config          oauth2.Config
	AuthorizeParams []oauth2.AuthCodeOption
	// LogoutParams are sent with the first sign-in after a sign-out.
	LogoutParams  []oauth2.AuthCodeOption
	PKCE          bool
	AutoAuthorize bool

	UserinfoEndpoint   string
	BalanceEndpoint    string
	TopupEndpoint      string
	TopupHosts         []string // with their ports; nil allows any host
	RevocationEndpoint string
	Issuer             string // of RFC 9207; empty if it is not configured
	Fields             FieldPaths

	TokenLifetime time.Duration
	Timeout       time.Duration
	// Watch is called when a request to the provider begins. The request uses the context that
	// it returns. end is called when the response has been read, with its status, or with 0
	// and the error if there was no response.
	Watch func(ctx context.Context, endpoint, method string) (watched context.Context, end func(status int, err error))
	// secret points to the client secret that has replaced Config's, or to nil.
	secret     *atomic.Pointer[string]
	httpClient *http.Client
	now        func() time.Time
}

// NewClient returns a client whose requests time out after timeout, and whose clock is now. Set
// the other fields before the first request.
func NewClient(timeout time.Duration, now func() time.Time) *Client {
	return &Client{Timeout: timeout, httpClient: NewHTTPClient(timeout), now: now, Watch: unwatched, secret: new(atomic.Pointer[string])}
}

func unwatched(ctx context.Context, _, _ string) (context.Context, func(int, error)) {
	return ctx, func(int, error) {}
}

// Endpoints returns the URLs of the endpoints that requests are sent to, by the names that Watch
// gets. The URL of an endpoint that is not configured is empty.
func (c *Client) Endpoints() map[string]string {
	return map[string]string{
		string(EndpointToken):      c.Config.Endpoint.TokenURL,
		string(EndpointUserinfo):   c.UserinfoEndpoint,
		string(endpointBalance):    c.BalanceEndpoint,
		string(endpointTopup):      c.TopupEndpoint,
		string(endpointRevocation): c.RevocationEndpoint,
	}
}

// With returns a copy of c that sends its requests through h.
func (c *Client) With(h *http.Client) *Client {
	other := *c
	other.httpClient = h
	return &other
}

// SetClientSecret replaces the client secret: the next request to the provider sends it. It
// reports whether the secret has changed.
func (c *Client) SetClientSecret(secret string) (changed bool) {
	if c.config().ClientSecret == secret {
		return false
	}
	c.secret.Store(&secret)
	return true
}

// config returns the configuration with the current client secret.
func (c *Client) config() *oauth2.Config {
	conf := c.Config
	if secret := c.secret.Load(); secret != nil {
		conf.ClientSecret = *secret
	}
	return &conf
}

// Close closes the idle connections to the provider.
func (c *Client) Close() { c.httpClient.CloseIdleConnections() }

// NewHTTPClient returns the http.Client for all requests to the provider. It does not follow
// redirects: a 307 from the token endpoint would send the client secret and the refresh token
// to another server. We never set an Idempotency-Key header, because with it Go's transport may
// send a refresh twice.
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

// AuthorizationURL returns the URL that the browser opens to sign in (RFC 6749 section 4.1.1,
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

// Exchange trades an authorization code for tokens (RFC 6749 section 4.1.3). A code is sent
// only once: after an ambiguous failure the user signs in again.
func (c *Client) Exchange(ctx context.Context, code, verifier string) (Tokens, error) {
	var options []oauth2.AuthCodeOption
	if c.PKCE {
		options = append(options, oauth2.VerifierOption(verifier))
	}
	sentAt := c.now()
	return c.requestTokens(ctx, Tokens{}, sentAt, func(ctx context.Context) (*oauth2.Token, error) {
		return c.config().Exchange(ctx, code, options...)
	})
}

// Refresh uses old's refresh token to get new tokens (RFC 6749 section 6). It sends the request
// exactly once.
//
// Even with an error the result may differ from old: a rotated refresh token is kept even if
// the rest of the response cannot be used.
func (c *Client) Refresh(ctx context.Context, old Tokens) (Tokens, error) {
	sentAt := c.now()
	return c.requestTokens(ctx, old, sentAt, func(ctx context.Context) (*oauth2.Token, error) {
		return c.config().TokenSource(ctx, &oauth2.Token{RefreshToken: old.Refresh}).Token()
	})
}

// requestTokens sends one request to the token endpoint and reads the response.
func (c *Client) requestTokens(ctx context.Context, old Tokens, sentAt time.Time, send func(context.Context) (*oauth2.Token, error)) (Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	client := *c.httpClient
	client.Timeout = 0 // ctx has the timeout; the client's own would hide our error
	client.Transport = &tokenResponses{next: c.httpClient.Transport, watch: c.Watch}
	response, err := send(context.WithValue(ctx, oauth2.HTTPClient, &client))
	if err != nil {
		if partial, ok := errors.AsType[*partialTokenResponse](err); ok && old.Refreshable() {
			old.Refresh = partial.refresh
			return old, partial.cause
		}
		if pe, ok := errors.AsType[*Error](err); ok {
			return old, pe
		}
		return old, &Error{Endpoint: EndpointToken, Kind: FailureUnanswered, Reason: "the response cannot be used", Because: cause.InvalidResponse}
	}
	return c.newTokens(old, response, sentAt), nil
}

// newTokens makes tokens from a response. A response without a refresh token leaves the old one
// valid (RFC 6749 section 6), and a response without a scope leaves the old scope.
func (c *Client) newTokens(old Tokens, response *oauth2.Token, sentAt time.Time) Tokens {
	lifetime := c.TokenLifetime
	if response.ExpiresIn > 0 {
		lifetime = time.Duration(min(response.ExpiresIn, maxExpiresIn)) * time.Second
	}
	t := Tokens{
		Access:  response.AccessToken,
		Refresh: response.RefreshToken,
		Scope:   old.Scope,
		Issued:  sentAt,
		Expires: sentAt.Add(lifetime),
	}
	if scope, ok := response.Extra("scope").(string); ok && scope != "" {
		t.Scope = scope
	}
	return t
}

// UserInfo reads the user information, and the balance if it has its own endpoint. If the
// provider does not accept the access token, the error is FailureUnauthorized.
func (c *Client) UserInfo(ctx context.Context, access string) (UserInfo, error) {
	sentAt := c.now()
	body, err := c.get(ctx, EndpointUserinfo, c.UserinfoEndpoint, access)
	if err != nil {
		return UserInfo{}, err
	}
	u, err := parseUserInfo(body, c.Fields, sentAt)
	if err != nil {
		return UserInfo{}, responseError(EndpointUserinfo, err)
	}
	if c.BalanceEndpoint == "" {
		return u, nil
	}
	if body, err = c.get(ctx, endpointBalance, c.BalanceEndpoint, access); err != nil {
		return UserInfo{}, err
	}
	if err := u.addBalance(body, c.Fields); err != nil {
		return UserInfo{}, responseError(endpointBalance, err)
	}
	return u, nil
}

// responseError returns the error for a response with a good status that cannot be used. A
// refusal in the body, or a response without a user, counts as a 401.
func responseError(endpoint providerEndpoint, err error) error {
	kind := FailureTransient
	if errors.Is(err, errUserInfoRefused) || errors.Is(err, errUserInfoNoID) {
		kind = FailureUnauthorized
	}
	return &Error{Endpoint: endpoint, Kind: kind, Status: http.StatusOK, Reason: err.Error()}
}

// get sends a GET request with the access token in the header (RFC 6750 section 2.1).
func (c *Client) get(ctx context.Context, endpoint providerEndpoint, address, access string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	ctx, end := c.Watch(ctx, string(endpoint), http.MethodGet)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		end(0, err)
		return nil, &Error{Endpoint: endpoint, Kind: FailureOperator, Reason: "the endpoint's URL is invalid", Because: cause.InvalidResponse}
	}
	req.Header.Set("Authorization", "Bearer "+access)
	req.Header.Set("Accept", acceptedType)
	res, err := c.httpClient.Do(req)
	if err != nil {
		end(0, err)
		return nil, unansweredError(endpoint, FailureTransient, err)
	}
	defer res.Body.Close()
	defer func() { end(res.StatusCode, nil) }() // after the body is read
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		return nil, &Error{Endpoint: endpoint, Kind: FailureUnauthorized, Status: res.StatusCode, Reason: "the access token is not accepted"}
	case res.StatusCode >= 400 && !isOutage(res.StatusCode):
		return nil, &Error{Endpoint: endpoint, Kind: FailureRefused, Status: res.StatusCode, Reason: "refused with status " + strconv.Itoa(res.StatusCode)}
	case res.StatusCode != http.StatusOK:
		return nil, &Error{Endpoint: endpoint, Status: res.StatusCode, Reason: "status " + strconv.Itoa(res.StatusCode)}
	}
	body, err := readResponse(res.Body)
	if err != nil {
		return nil, &Error{Endpoint: endpoint, Status: res.StatusCode, Reason: err.Error(), Because: cause.Of(err)}
	}
	return body, nil
}

// Revoke asks the provider to revoke a refresh token (RFC 7009). The session has ended whether
// or not this succeeds.
func (c *Client) Revoke(ctx context.Context, refresh string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	form := url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}}
	conf := c.config()
	inHeader := conf.Endpoint.AuthStyle == oauth2.AuthStyleInHeader
	if !inHeader {
		form.Set("client_id", conf.ClientID)
		if conf.ClientSecret != "" {
			form.Set("client_secret", conf.ClientSecret)
		}
	}
	ctx, end := c.Watch(ctx, string(endpointRevocation), http.MethodPost)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.RevocationEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		end(0, err)
		return &Error{Endpoint: endpointRevocation, Kind: FailureOperator, Reason: "the endpoint's URL is invalid", Because: cause.InvalidResponse}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", acceptedType)
	if inHeader {
		req.SetBasicAuth(url.QueryEscape(conf.ClientID), url.QueryEscape(conf.ClientSecret))
	}
	res, err := c.httpClient.Do(req)
	if err != nil {
		end(0, err)
		return unansweredError(endpointRevocation, FailureTransient, err)
	}
	defer res.Body.Close()
	end(res.StatusCode, nil)
	if res.StatusCode != http.StatusOK {
		return &Error{Endpoint: endpointRevocation, Status: res.StatusCode, Reason: "status " + strconv.Itoa(res.StatusCode)}
	}
	return nil
}
