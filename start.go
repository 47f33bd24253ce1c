package tollgate

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/neighbours"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
	"github.com/caddy-tollgate/tollgate/internal/starting"
)

// introduce writes the line about the site, and has its store looked at after the start. A
// site with several tollgates writes one line.
func (h *Handler) introduce(ctx caddy.Context) error {
	if h.place.Repeats() {
		return nil
	}
	starting.Site{
		Provider: h.settings.providerName, Store: h.storeName, Secrets: h.Secret, On: h.optionsOn(),
	}.Log(h.logger)
	if neighbours.PlaceOf(ctx).App == nil {
		return nil // a handler outside of Caddy's HTTP app is never started
	}
	return starting.AfterStart(ctx, starting.Look(h.store, h.storeName, h.logger))
}

// warnings are what the operator may not want of this configuration. With a sign-in page the
// operator may want that signing out leads to it.
func (s *settings) warnings(matchers caddyhttp.MatcherSets) starting.Warnings {
	w := starting.Warnings{
		TrustsEverybody: s.forwarding.Proxies.Everybody(),
		Gaps:            policy.MatcherGaps(resolve.MatchedPaths(matchers), s.public, s.optional),
		CrossSiteCookie: s.cookies.SameSite == http.SameSiteNoneMode,
		TokenIsLogged:   s.identity.Token != "" && s.identity.Token != identity.DefaultTokenHeader,
	}
	for _, gap := range policy.RuleGaps(s.public, s.optional, s.required) {
		w.Gaps = append(w.Gaps, gap.String())
	}
	if len(matchers) == 0 && resolve.NeedsLogin(s.afterLogout, s.endpoints, s.public, s.optional) && !s.loginPage {
		w.LogoutNeedsLogin = s.afterLogout
	}
	return w
}

// warnOfMadeSecret warns that this process has made the secret of the site.
func (h *Handler) warnOfMadeSecret() {
	h.logger.Warn("a secret was made and is kept in Caddy's storage: anyone who can read the storage can make sessions, and gateways with another storage do not share them; set `secret` to avoid both",
		zap.String("key", keys.StoredSecretKey))
}

// optionsOn are the options that decide how the site works.
func (h *Handler) optionsOn() []starting.Option {
	client := h.settings.client
	return []starting.Option{
		{Name: "match", Used: len(h.Match) > 0},
		{Name: "public", Used: len(h.Public) > 0},
		{Name: "optional", Used: len(h.Optional) > 0},
		{Name: "require", Used: len(h.Require) > 0},
		{Name: "reserve_or_budget", Used: h.settings.charge != nil},
		{Name: "topup", Used: client.TopupEndpoint != ""},
		{Name: "revocation", Used: client.RevocationEndpoint != ""},
		{Name: "pkce", Used: client.PKCE},
		{Name: "assertion", Used: h.Assertion != nil},
		{Name: "pass_access_token", Used: h.PassAccessToken != ""},
		{Name: "retry_unauthorized", Used: h.settings.retryUnauthorized},
		{Name: "forward_auth", Used: h.ForwardAuth != nil},
		{Name: "login_page", Used: h.LoginPage},
		{Name: "idle_timeout", Used: h.settings.idleTimeout > 0},
		{Name: "insecure_http", Used: h.InsecureHTTP},
	}
}
