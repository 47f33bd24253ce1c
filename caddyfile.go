package tollgate

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// directive is the name in the Caddyfile.
const directive = "tollgate"

func init() {
	httpcaddyfile.RegisterDirective(directive, parseCaddyfile)
	// After basic_auth and forward_auth, before everything that may use the identity.
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "request_header")
}

// wordParser reads the directive's own blocks.
type wordParser struct{ *blockParser }

// parseCaddyfile makes one route of the directive, without a matcher: every request of
// the site comes to the handler, and the matcher is a setting of it.
func parseCaddyfile(helper httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !helper.Next() {
		return nil, helper.ArgErr()
	}
	matcher, err := helper.ExtractMatcherSet()
	if err != nil {
		return nil, withoutSecrets(err, nil)
	}
	h := new(Handler)
	if len(matcher) > 0 {
		h.Match = caddyhttp.RawMatcherSets{matcher}
	}
	if err := h.UnmarshalCaddyfile(helper.Dispenser); err != nil {
		return nil, err
	}
	return helper.NewRoute(nil, h), nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. One word per
// setting, the same word as the JSON key; a word that takes one value may stand
// once. The matcher becomes the field Match.
//
//	tollgate [<matcher>] {
//		provider aihubmix|oauth2 {
//			base_url               <url>
//			client_id              <id>
//			client_secret          <secret>
//			client_authentication  client_secret_post|client_secret_basic|none
//			authorization_endpoint <url>
//			token_endpoint         <url>
//			userinfo_endpoint      <url>
//			topup_endpoint         <url>|off
//			revocation_endpoint    <url>
//			balance_endpoint       <url>
//			issuer                 <url>
//			scopes                 <scope...>
//			auto_authorize         on|off
//			pkce                   on|off
//			authorize_param        <name> <value>
//			logout_param           <name> <value>|off
//			token_lifetime         <duration>
//			timeout                <duration>
//			fields {
//				<field> <dotted path>
//			}
//			active_status          <status>|any
//		}
//		redirect_uri   <url>
//		secret         <current> [<previous...>]
//		path_prefix    <path>
//		endpoints {
//			<endpoint> <path>
//		}
//		public         <path...>
//		optional       <path...>
//		require [<path...>] {
//			balance      <amount>
//			email_domain <domain...>
//			user         <id...>
//		}
//		topup_hosts    <host...>
//		balance {
//			max_age    <duration>
//			max_stale  <duration>
//			on_unknown deny|allow
//		}
//		identity [<preset...>] {
//			header     <name> <value>
//		}
//		assertion {
//			header     <name>
//			audience   <text>
//			lifetime   <duration>
//		}
//		pass_access_token  [<header>]
//		retry_unauthorized on|off
//		session {
//			store         cookie|storage|redis { … }
//			lifetime      <duration>
//			idle_timeout  off|<duration>
//			same_site     lax|strict|none
//			cookie_name   <name>
//			cookie_domain <domain>
//			partitioned   on|off
//		}
//		forward_auth {
//			trusted_proxies <address|cidr|private_ranges...>
//		}
//		refresh_before <duration>
//		stream_recheck <duration>
//		login_page     on|off
//		after_login    <path>
//		after_logout   <path>
//		error_redirect <path>
//		brand          <name>
//		logo           <file>
//		accent         <hex digits>
//		pages          <folder>
//		insecure_http
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	p := &wordParser{newBlockParser(d, directive, "")}
	if p.NextArg() {
		return p.ArgErr()
	}
	err := p.block("", words{
		"provider":           p.provider(&h.Provider),
		"redirect_uri":       p.text(&h.RedirectURI),
		"secret":             p.list(&h.Secret),
		"path_prefix":        p.text(&h.PathPrefix),
		"endpoints":          p.table(&h.Endpoints, endpointNames),
		"public":             p.repeatedList(&h.Public),
		"optional":           p.repeatedList(&h.Optional),
		"require":            p.require(&h.Require),
		"topup_hosts":        p.repeatedList(&h.TopupHosts),
		"balance":            p.balance(&h.Balance),
		"identity":           p.identity(&h.Identity),
		"assertion":          p.assertion(&h.Assertion),
		"pass_access_token":  p.optionalText(&h.PassAccessToken, defaultTokenHeader),
		"retry_unauthorized": p.onOffDefault(&h.RetryUnauthorized),
		"session":            p.session(&h.Session),
		"forward_auth":       p.forwardAuth(&h.ForwardAuth),
		"refresh_before":     p.duration(&h.RefreshBefore),
		"stream_recheck":     p.duration(&h.StreamRecheck),
		"login_page":         p.onOff(&h.LoginPage),
		"after_login":        p.text(&h.AfterLogin),
		"after_logout":       p.text(&h.AfterLogout),
		"error_redirect":     p.text(&h.ErrorRedirect),
		"brand":              p.text(&h.Brand),
		"logo":               p.text(&h.Logo),
		"accent":             p.colour(&h.Accent),
		"pages":              p.text(&h.Pages),
		"insecure_http":      p.bare(&h.InsecureHTTP),
	})
	if err != nil {
		return err
	}
	return p.tryOut(func(repl *caddy.Replacer) error {
		_, err := h.resolve(repl)
		return err
	})
}

func (p *wordParser) provider(target **Provider) word {
	return word{once: true, parse: func(path string) error {
		provider := new(Provider)
		*target = provider
		if !p.NextArg() {
			return p.wrongArgs(path)
		}
		provider.Preset = p.Val()
		if !slices.Contains(providerPresetNames(), provider.Preset) {
			return p.Errf("unknown provider '%s'%s", p.Val(), didYouMean(p.Val(), providerPresetNames()))
		}
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		return p.block(path, words{
			"base_url":               p.text(&provider.BaseURL),
			"client_id":              p.text(&provider.ClientID),
			"client_secret":          p.text(&provider.ClientSecret),
			"client_authentication":  p.text(&provider.ClientAuthentication),
			"authorization_endpoint": p.text(&provider.AuthorizationEndpoint),
			"token_endpoint":         p.text(&provider.TokenEndpoint),
			"userinfo_endpoint":      p.text(&provider.UserinfoEndpoint),
			"topup_endpoint":         p.text(&provider.TopupEndpoint),
			"revocation_endpoint":    p.text(&provider.RevocationEndpoint),
			"balance_endpoint":       p.text(&provider.BalanceEndpoint),
			"issuer":                 p.text(&provider.Issuer),
			"scopes":                 p.repeatedList(&provider.Scopes),
			"auto_authorize":         p.onOffDefault(&provider.AutoAuthorize),
			"pkce":                   p.onOffDefault(&provider.PKCE),
			"authorize_param":        p.pair(&provider.AuthorizeParam),
			"logout_param":           p.pairsOrOff(&provider.LogoutParam),
			"token_lifetime":         p.duration(&provider.TokenLifetime),
			"timeout":                p.duration(&provider.Timeout),
			"fields":                 p.table(&provider.Fields, userFieldWords[:]),
			"active_status":          p.text(&provider.ActiveStatus),
		})
	}}
}

// require reads one block of rules. There may be several, so that each has its number.
func (p *wordParser) require(target *[]*Require) word {
	return word{parse: func(path string) error {
		path = fmt.Sprintf("%s[%d]", path, len(*target))
		p.note(path)
		require := new(Require)
		*target = append(*target, require)
		require.Paths = append(require.Paths, p.RemainingArgs()...)
		if slices.Contains(require.Paths, "") {
			return p.Errf("%s is empty", path)
		}
		return p.block(path, words{
			"balance":      p.text(&require.Balance),
			"email_domain": p.repeatedList(&require.EmailDomain),
			"user":         p.repeatedList(&require.User),
		})
	}}
}

func (p *wordParser) balance(target **Balance) word {
	return word{once: true, parse: func(path string) error {
		balance := new(Balance)
		*target = balance
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		return p.block(path, words{
			"max_age":    p.duration(&balance.MaxAge),
			"max_stale":  p.duration(&balance.MaxStale),
			"on_unknown": p.text(&balance.OnUnknown),
		})
	}}
}

func (p *wordParser) identity(target **Identity) word {
	return word{once: true, parse: func(path string) error {
		identity := new(Identity)
		*target = identity
		for p.NextArg() {
			if _, known := identityPresets[p.Val()]; !known {
				return p.Errf("unknown preset '%s'%s", p.Val(), didYouMean(p.Val(), presetNames()))
			}
			identity.Presets = append(identity.Presets, p.Val())
		}
		return p.block(path, words{"header": p.pair(&identity.Header)})
	}}
}

func (p *wordParser) assertion(target **Assertion) word {
	return word{once: true, parse: func(path string) error {
		assertion := new(Assertion)
		*target = assertion
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		return p.block(path, words{
			"header":   p.text(&assertion.Header),
			"audience": p.text(&assertion.Audience),
			"lifetime": p.duration(&assertion.Lifetime),
		})
	}}
}

func (p *wordParser) session(target **Session) word {
	return word{once: true, parse: func(path string) error {
		session := new(Session)
		*target = session
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		return p.block(path, words{
			"store":         p.store(&session.Store),
			"lifetime":      p.duration(&session.Lifetime),
			"idle_timeout":  p.durationOrOff(&session.IdleTimeout),
			"same_site":     p.text(&session.SameSite),
			"cookie_name":   p.text(&session.CookieName),
			"cookie_domain": p.text(&session.CookieDomain),
			"partitioned":   p.onOff(&session.Partitioned),
		})
	}}
}

func (p *wordParser) forwardAuth(target **ForwardAuth) word {
	return word{once: true, parse: func(path string) error {
		forwardAuth := new(ForwardAuth)
		*target = forwardAuth
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		return p.block(path, words{"trusted_proxies": p.repeatedList(&forwardAuth.TrustedProxies)})
	}}
}

// colour reads hex digits. In front of them a # begins a comment in a Caddyfile.
func (p *wordParser) colour(target *string) word {
	w := p.text(target)
	return word{once: true, parse: func(path string) error {
		if p.CountRemainingArgs() == 0 {
			return p.Errf("%s: no colour; write its hex digits without a #, which begins a comment", path)
		}
		return w.parse(path)
	}}
}

// storeNamespace is the namespace of the session stores' modules.
const storeNamespace = "tollgate.stores"

func (p *wordParser) store(target *json.RawMessage) word {
	return word{once: true, parse: func(path string) error {
		if !p.NextArg() {
			return p.wrongArgs(path)
		}
		name := p.Val()
		names := storeNames()
		if !slices.Contains(names, name) {
			return p.Errf("unknown session store '%s'%s", name, didYouMean(name, names))
		}
		module, err := caddyfile.UnmarshalModule(p.Dispenser, storeNamespace+"."+name)
		if err != nil {
			return err
		}
		*target = caddyconfig.JSONModuleObject(module, "module", name, nil)
		return nil
	}}
}

// storeNames are the session stores that this program was built with.
func storeNames() []string {
	var names []string
	for _, info := range caddy.GetModules(storeNamespace) {
		names = append(names, info.ID.Name())
	}
	return names
}

func presetNames() []string {
	names := make([]string, 0, len(identityPresets))
	for name := range identityPresets {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Interface guards.
var _ caddyfile.Unmarshaler = (*Handler)(nil)
