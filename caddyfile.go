package tollgate

import (
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
)

// directive is the directive's name in the Caddyfile.
const directive = "tollgate"

func init() {
	httpcaddyfile.RegisterDirective(directive, parseCaddyfile)
	// After basic_auth and forward_auth, before all directives that may use the identity.
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "request_header")
}

// wordParser reads the directive's own blocks.
type wordParser struct{ *config.Parser }

// parseCaddyfile creates one route without a matcher: the handler receives every request of
// the site. The directive's matcher becomes a setting of the handler.
func parseCaddyfile(helper httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !helper.Next() {
		return nil, helper.ArgErr()
	}
	matcher, err := helper.ExtractMatcherSet()
	if err != nil {
		return nil, config.WithoutSecrets(err, nil)
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

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Each option has the same name
// as its JSON key. An option with a single value may be given only once. The matcher becomes
// the field Match.
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
//			reserve      [<amount>]
//			budget       <amount> per hour|day|month
//			email_domain <domain...>
//			user         <id...>
//		}
//		topup_hosts    <host...>
//		balance {
//			max_age    <duration>
//			max_stale  <duration>
//			on_unknown deny|allow
//			low        <amount>
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
	p := &wordParser{config.NewParser(d, directive, "")}
	if p.NextArg() {
		return p.ArgErr()
	}
	err := p.Block("", config.Words{
		"provider":           p.provider(&h.Provider),
		"redirect_uri":       p.Text(&h.RedirectURI),
		"secret":             p.List(&h.Secret),
		"path_prefix":        p.Text(&h.PathPrefix),
		"endpoints":          p.Table(&h.Endpoints, endpointNames()),
		"public":             p.RepeatedList(&h.Public),
		"optional":           p.RepeatedList(&h.Optional),
		"require":            p.require(&h.Require),
		"topup_hosts":        p.RepeatedList(&h.TopupHosts),
		"balance":            p.balance(&h.Balance),
		"identity":           p.identity(&h.Identity),
		"assertion":          p.assertion(&h.Assertion),
		"pass_access_token":  p.OptionalText(&h.PassAccessToken, identity.DefaultTokenHeader),
		"retry_unauthorized": p.OnOffDefault(&h.RetryUnauthorized),
		"session":            p.session(&h.Session),
		"forward_auth":       p.forwardAuth(&h.ForwardAuth),
		"refresh_before":     p.Duration(&h.RefreshBefore),
		"stream_recheck":     p.Duration(&h.StreamRecheck),
		"login_page":         p.OnOff(&h.LoginPage),
		"after_login":        p.Text(&h.AfterLogin),
		"after_logout":       p.Text(&h.AfterLogout),
		"error_redirect":     p.Text(&h.ErrorRedirect),
		"brand":              p.Text(&h.Brand),
		"logo":               p.Text(&h.Logo),
		"accent":             p.Colour(&h.Accent),
		"pages":              p.Text(&h.Pages),
		"insecure_http":      p.Bare(&h.InsecureHTTP),
	})
	if err != nil {
		return err
	}
	return p.TryOut(func(repl *caddy.Replacer) error {
		_, err := h.resolve(repl)
		return err
	})
}

func (p *wordParser) provider(target **Provider) config.Word {
	return config.Word{Once: true, Parse: func(path string) error {
		provider := new(Provider)
		*target = provider
		if !p.NextArg() {
			return p.WrongArgs(path)
		}
		provider.Preset = p.Val()
		if !slices.Contains(resolve.PresetNames(), provider.Preset) {
			return p.Errf("unknown provider '%s'%s", p.Val(), config.DidYouMean(p.Val(), resolve.PresetNames()))
		}
		if p.NextArg() {
			return p.WrongArgs(path)
		}
		return p.Block(path, config.Words{
			"base_url":               p.Text(&provider.BaseURL),
			"client_id":              p.Text(&provider.ClientID),
			"client_secret":          p.Text(&provider.ClientSecret),
			"client_authentication":  p.Text(&provider.ClientAuthentication),
			"authorization_endpoint": p.Text(&provider.AuthorizationEndpoint),
			"token_endpoint":         p.Text(&provider.TokenEndpoint),
			"userinfo_endpoint":      p.Text(&provider.UserinfoEndpoint),
			"topup_endpoint":         p.Text(&provider.TopupEndpoint),
			"revocation_endpoint":    p.Text(&provider.RevocationEndpoint),
			"balance_endpoint":       p.Text(&provider.BalanceEndpoint),
			"issuer":                 p.Text(&provider.Issuer),
			"scopes":                 p.RepeatedList(&provider.Scopes),
			"auto_authorize":         p.OnOffDefault(&provider.AutoAuthorize),
			"pkce":                   p.OnOffDefault(&provider.PKCE),
			"authorize_param":        p.Pair(&provider.AuthorizeParam),
			"logout_param":           p.PairsOrOff(&provider.LogoutParam),
			"token_lifetime":         p.Duration(&provider.TokenLifetime),
			"timeout":                p.Duration(&provider.Timeout),
			"fields":                 p.Table(&provider.Fields, oauth.UserFieldWords[:]),
			"active_status":          p.Text(&provider.ActiveStatus),
		})
	}}
}

// require reads one block of rules. There may be several, so errors number them.
func (p *wordParser) require(target *[]*Require) config.Word {
	return config.Word{Parse: func(path string) error {
		path = fmt.Sprintf("%s[%d]", path, len(*target))
		p.Note(path)
		require := new(Require)
		*target = append(*target, require)
		require.Paths = append(require.Paths, p.RemainingArgs()...)
		if slices.Contains(require.Paths, "") {
			return p.Errf("%s is empty", path)
		}
		bare := false
		err := p.Block(path, config.Words{
			"balance":      p.Text(&require.Balance),
			"reserve":      p.reserve(&require.Reserve, &bare),
			"budget":       p.budget(&require.Budget),
			"email_domain": p.RepeatedList(&require.EmailDomain),
			"user":         p.RepeatedList(&require.User),
		})
		switch {
		case err != nil:
			return err
		case bare && require.Balance == "":
			return p.Errf("%s.reserve: needs an amount, or a balance in the same block", path)
		case bare:
			require.Reserve = require.Balance
		}
		return nil
	}}
}

// reserve parses `reserve` with an amount or without one. Without one it sets bare, and the amount is
// the balance of the block.
func (p *wordParser) reserve(target *string, bare *bool) config.Word {
	w := p.Text(target)
	return config.Word{Once: true, Parse: func(path string) error {
		if p.CountRemainingArgs() == 0 {
			*bare = true
			return nil
		}
		return w.Parse(path)
	}}
}

// budget parses `budget <amount> per <window>`.
func (p *wordParser) budget(target *[]*Budget) config.Word {
	return config.Word{Parse: func(path string) error {
		budget := new(Budget)
		var per string
		switch {
		case !p.AllArgs(&budget.Amount, &per, &budget.Per):
			return p.WrongArgs(path)
		case per != "per":
			return p.Errf("%s: '%s' should be 'per', as in `budget 5.00 per day`", path, per)
		}
		*target = append(*target, budget)
		p.Note(fmt.Sprintf("%s[%d]", path, len(*target)-1))
		return nil
	}}
}

func (p *wordParser) balance(target **Balance) config.Word {
	return config.BlockOf(p.Parser, target, func(b *Balance) config.Words {
		return config.Words{
			"max_age":    p.Duration(&b.MaxAge),
			"max_stale":  p.Duration(&b.MaxStale),
			"on_unknown": p.Text(&b.OnUnknown),
			"low":        p.Text(&b.Low),
		}
	})
}

func (p *wordParser) identity(target **Identity) config.Word {
	return config.Word{Once: true, Parse: func(path string) error {
		block := new(Identity)
		*target = block
		for p.NextArg() {
			if _, known := identity.Presets[p.Val()]; !known {
				return p.Errf("unknown preset '%s'%s", p.Val(), config.DidYouMean(p.Val(), identity.PresetNames()))
			}
			block.Presets = append(block.Presets, p.Val())
		}
		return p.Block(path, config.Words{"header": p.Pair(&block.Header)})
	}}
}

func (p *wordParser) assertion(target **Assertion) config.Word {
	return config.BlockOf(p.Parser, target, func(a *Assertion) config.Words {
		return config.Words{
			"header":   p.Text(&a.Header),
			"audience": p.Text(&a.Audience),
			"lifetime": p.Duration(&a.Lifetime),
		}
	})
}

func (p *wordParser) session(target **Session) config.Word {
	return config.BlockOf(p.Parser, target, func(s *Session) config.Words {
		return config.Words{
			"store":         p.Store(&s.Store),
			"lifetime":      p.Duration(&s.Lifetime),
			"idle_timeout":  p.DurationOrOff(&s.IdleTimeout),
			"same_site":     p.Text(&s.SameSite),
			"cookie_name":   p.Text(&s.CookieName),
			"cookie_domain": p.Text(&s.CookieDomain),
			"partitioned":   p.OnOff(&s.Partitioned),
		}
	})
}

func (p *wordParser) forwardAuth(target **ForwardAuth) config.Word {
	return config.BlockOf(p.Parser, target, func(f *ForwardAuth) config.Words {
		return config.Words{"trusted_proxies": p.RepeatedList(&f.TrustedProxies)}
	})
}

// Interface guards.
var _ caddyfile.Unmarshaler = (*Handler)(nil)
