package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// checkAuthorization begins a sign-in as a browser would, and goes no further than the first
// response.
func checkAuthorization(ctx context.Context, e *examination) []Finding {
	const option = "authorization_endpoint"
	p, endpoint := e.provider, e.Client.Config.Endpoint.AuthURL
	// As after a sign-out: without auto_authorize, which could give a code at once.
	p.get(ctx, p.client.AuthorizationURL(madeUp(), madeUp()+madeUp(), true), "")
	if findings := p.common(option, endpoint); findings != nil {
		return findings
	}
	shown, register := shownURL(endpoint), "register "+e.RedirectURI+" at the provider, letter by letter"
	switch last := p.last; {
	case last.location != nil && isBelow(last.location, e.RedirectURI):
		if code := last.location.Query().Get("error"); code != "" {
			return fail(fmt.Sprintf("%s knows redirect_uri, and refuses the sign-in with the error %s", shown, oauth.AuthorizationErrorCode(code)), adviceFor(code))
		}
		return ok("%s accepts redirect_uri", shown)
	case last.location != nil && strings.Contains(strings.ToLower(last.location.Path+last.location.RawQuery), "error"):
		return fail(shown+" leads to an error page: the client id or redirect_uri is not registered", register)
	case last.status >= 400:
		return refusedAuthorization(shown, register, last)
	}
	return ok("%s accepts redirect_uri, as far as can be seen without signing in", shown)
}

// refusedAuthorization guesses by the text of the page why a sign-in cannot begin.
func refusedAuthorization(shown, register string, last response) []Finding {
	text := strings.ToLower(last.body)
	namesRedirect := strings.Contains(text, "redirect")
	namesClient := strings.Contains(text, "client_id") || strings.Contains(text, "client id") || strings.Contains(text, "invalid_client") || strings.Contains(text, "unauthorized_client")
	switch {
	case namesRedirect && !namesClient || strings.Contains(text, "redirect_uri is not"):
		return fail(fmt.Sprintf("%s answers %d: redirect_uri is not registered for this client", shown, last.status), register)
	case namesClient:
		return fail(fmt.Sprintf("%s answers %d: the provider does not know this client_id", shown, last.status), "correct client_id, or register the application")
	default:
		return fail(fmt.Sprintf("%s answers %d: it refuses to begin a sign-in. Most often redirect_uri is not registered, or client_id is wrong", shown, last.status), register)
	}
}

// isBelow reports whether a URL is redirect_uri with a query.
func isBelow(u *url.URL, redirectURI string) bool {
	address, _, _ := strings.Cut(u.String(), "?")
	return address == redirectURI
}

// adviceFor says what to do about an error code of RFC 6749 section 4.1.2.1.
func adviceFor(code string) string {
	switch code {
	case "invalid_scope":
		return "correct `scopes`: the provider does not give one of them to this client"
	case "unauthorized_client":
		return "allow the authorization code grant for this client at the provider"
	case "temporarily_unavailable", "server_error":
		return "run doctor again in a few minutes; look at the provider's status page"
	default:
		return "compare the client's settings at the provider with `client_id`, `scopes`, `pkce` and `authorize_param`"
	}
}

// checkToken sends a made-up code to the token endpoint. A provider checks the client first,
// then the code, so its answer tells a wrong client secret from a right one.
func checkToken(ctx context.Context, e *examination) []Finding {
	const option = "token_endpoint"
	p, endpoint := e.provider, e.Client.Config.Endpoint.TokenURL
	shown := shownURL(endpoint)
	if p.isDown(endpoint) {
		return warn("not checked: "+shown+" does not respond", "correct what the check before says")
	}
	_, err := p.client.Exchange(ctx, madeUp(), madeUp()+madeUp())
	code := errorCode(err)
	switch code {
	case "invalid_grant":
		return ok("%s accepts the client, and refuses a made-up code", shown)
	case "invalid_client":
		return fail(shown+" refuses the client (invalid_client): client_secret or client_id is wrong, or the provider expects another client_authentication",
			"copy client_id and client_secret from the provider's console again; if they are right, try `client_authentication client_secret_basic`")
	case "unauthorized_client":
		return fail(shown+" refuses this client (unauthorized_client)", adviceFor(code))
	}
	if findings := p.redirected(option, endpoint); findings != nil {
		return findings
	}
	if findings := p.common(option, endpoint); findings != nil {
		return findings
	}
	switch last := p.last; {
	case oauth.FailureOf(err) == oauth.FailureOperator:
		return fail(fmt.Sprintf("%s answers %d: it does not accept the client's id and secret", shown, last.status),
			"copy client_id and client_secret from the provider's console again")
	case last.html:
		return fail(fmt.Sprintf("%s answers %d with a page, not with JSON: this is not the token endpoint", shown, last.status),
			"correct `"+option+"`, or `base_url`, by the provider's documentation")
	case err == nil:
		return warn(shown+" gives tokens for a made-up code: this is no real provider", "use the provider's real `"+option+"`")
	default:
		return warn(fmt.Sprintf("%s answers %d, not the error invalid_grant: whether the client secret is right could not be seen", shown, last.status),
			"sign in once, and look at the log if that fails")
	}
}

// errorCode is the error code of a token endpoint's response, or empty.
func errorCode(err error) string {
	if pe, ok := errors.AsType[*oauth.Error](err); ok {
		return pe.Code
	}
	return ""
}

// checkOtherEndpoints asks the remaining endpoints with a made-up access token, which they must
// refuse.
func checkOtherEndpoints(ctx context.Context, e *examination) []Finding {
	var findings []Finding
	for _, each := range []struct{ option, url string }{
		{"userinfo_endpoint", e.Client.UserinfoEndpoint},
		{"balance_endpoint", e.Client.BalanceEndpoint},
		{"topup_endpoint", e.Client.TopupEndpoint},
		{"revocation_endpoint", e.Client.RevocationEndpoint},
	} {
		if each.url == "" || e.provider.isDown(each.url) {
			continue
		}
		for _, f := range e.askEndpoint(ctx, each.option, each.url) {
			f.Check = strings.ReplaceAll(each.option, "_", " ")
			findings = append(findings, f)
		}
	}
	return findings
}

// askEndpoint asks one of these endpoints.
func (e *examination) askEndpoint(ctx context.Context, option, endpoint string) []Finding {
	p, shown := e.provider, shownURL(endpoint)
	if option == "revocation_endpoint" {
		// A provider answers 200 to a token that it does not know (RFC 7009 section 2.2).
		_ = p.client.Revoke(ctx, madeUp())
	} else {
		p.get(ctx, endpoint, madeUp())
	}
	if findings := p.redirected(option, endpoint); findings != nil {
		return findings
	}
	if findings := p.common(option, endpoint); findings != nil {
		return findings
	}
	switch last := p.last; {
	case last.html:
		return fail(fmt.Sprintf("%s answers %d with a page, not with JSON: this is not the endpoint", shown, last.status),
			"correct `"+option+"`, or `base_url`, by the provider's documentation")
	case option == "revocation_endpoint":
		return ok("%s answers %d", shown, last.status)
	case last.status == http.StatusOK && !strings.Contains(strings.ReplaceAll(last.body, " ", ""), `"success":false`):
		return warn(shown+" accepts a made-up access token: everybody is the same user there", "correct `"+option+"`, by the provider's documentation")
	}
	return ok("%s refuses a made-up access token", shown)
}

const (
	// smallSkew is how far two good clocks may be apart. Date has whole seconds.
	smallSkew = 10 * time.Second
	// largeSkew makes certificates and assertions invalid.
	largeSkew = 2 * time.Minute
)

// checkClock compares this machine's clock with the provider's.
func checkClock(_ context.Context, e *examination) []Finding {
	p := e.provider
	if p.ownClock.IsZero() {
		return ok("not compared: the provider sent no Date")
	}
	skew := p.ownClock.Sub(p.providersClock).Round(time.Second)
	way := "ahead of"
	if skew < 0 {
		way = "behind"
	}
	text := fmt.Sprintf("this machine's clock is %s %s the provider's", skew.Abs(), way)
	do := "let the machine set its clock from the network (systemd: `timedatectl set-ntp true`). If it does so already, the provider's clock is wrong"
	switch {
	case skew.Abs() <= smallSkew:
		return ok("this machine and the provider agree on the time")
	case skew.Abs() <= largeSkew:
		return warn(text, do)
	default:
		return fail(text+": assertions, sessions that gateways share, and certificates go by it", do)
	}
}
