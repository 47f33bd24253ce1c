package tollgate

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/doctor"
	"github.com/caddy-tollgate/tollgate/internal/explain"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
	"github.com/caddy-tollgate/tollgate/internal/watch"
)

// Examine implements doctor.Patient.
func (h *Handler) Examine() *doctor.Site {
	return &doctor.Site{
		Site:             h.place,
		Client:           h.settings.client,
		Endpoints:        h.settings.endpoints,
		Secrets:          h.settings.secrets,
		SecretTexts:      h.Secret,
		ClientSecretText: h.Provider.ClientSecret,
		StoreName:        h.storeName,
		Store:            watch.Unwrap(h.store),
		Storage:          h.ctx.Storage(),
		Lifetime:         h.settings.lifetime,
		TrustedProxies:   h.settings.forwarding.Proxies,
		SetIdentity:      h.settings.identity.SetEmpty,
	}
}

// Explain implements explain.Explainer. It goes the way of ServeHTTP, with a visit that asks
// the provider nothing.
func (h *Handler) Explain(r *http.Request) *explain.Explanation {
	e := &explain.Explanation{Site: h.settings.origin, Cookie: "none"}
	if judged := policy.JudgeTarget(r, originalURL(r)); judged != policy.TargetOK {
		return e.Refuse(targetRefusals[judged].Status, "refused before anything else: "+targetRefusals[judged].Title)
	}
	h.settings.identity.Strip(r)
	x := &explaining{e, h, &visit{sent: h.settings.cookies.Take(r.Header), explained: true}}
	e.Paths = x.routes().Paths(originalURL(r), r)
	to := h.route(r)
	e.Endpoint, e.LeftOut = to.endpoint, to.leftOut
	x.cookie(r.Context())
	switch {
	case to.ambiguous != unambiguous && to.endpoint == "auth":
		return e.Refuse(http.StatusUnauthorized, "`auth` refuses an ambiguous path")
	case to.ambiguous != unambiguous:
		return e.Refuse(http.StatusBadRequest, "refused: servers read this path in different ways, and the rules differ for them")
	case to.endpoint == "auth":
		asked, ok := h.settings.forwarding.Question(h.routes, r, originalURL(r))
		to.demand = asked.Demand
		e.Notes = append(e.Notes, "`auth` answers for the URL that the proxy in front names, so the outcome is about a request for that URL")
		if !ok || policy.ForwardsTunnel(r.Header) {
			return e.Refuse(http.StatusUnauthorized, "`auth` refuses: the proxy headers contradict each other, or name no path")
		}
	case to.endpoint != "":
		for i := range e.Paths {
			e.Paths[i].Access, e.Paths[i].By = "", nil // the rules do not apply
		}
		e.Outcome = fmt.Sprintf("the gateway's own endpoint `%s` responds; the upstream is not asked", to.endpoint)
		if row, allowed := endpointFor(to.endpoint, r.Method); row == nil {
			e.Refuse(http.StatusMethodNotAllowed, fmt.Sprintf("the endpoint `%s` accepts only %s", to.endpoint, strings.Join(allowed, ", ")))
		}
		return e
	}
	e.Access = explain.AccessName(to.demand.Access)
	if to.demand.Access != policy.AccessPublic {
		x.rules(to.demand.Blocks)
	}
	x.decide(r, to.demand)
	return e
}

// explaining is a request that is explained.
type explaining struct {
	*explain.Explanation
	handler *Handler
	visit   *visit
}

// routes are the rules by path of the site.
func (x *explaining) routes() explain.Routes {
	h := x.handler
	return explain.Routes{
		All: h.routes, Public: h.settings.public, Optional: h.settings.optional,
		Only: func(pattern string) (*policy.Routes, error) {
			return resolve.Routes(h.ctx, nil, []string{pattern}, nil)
		},
	}
}

// cookie finds the session of the request, and describes it.
func (x *explaining) cookie(ctx context.Context) {
	h, v := x.handler, x.visit
	value, sent := v.sent.SessionValue()
	switch {
	case v.sent.Duplicate:
		x.Cookie = "two cookies named " + h.settings.cookies.Name + ": both are rejected"
		return
	case !sent:
		x.Cookie = "no complete cookie named " + h.settings.cookies.Name
		return
	case len(h.settings.secrets) == 0 && !h.ctx.Storage().Exists(ctx, keys.StoredSecretKey):
		x.Cookie = "cannot be opened: no secret is configured, and none has been made yet"
		return
	}
	err := h.sessions.find(ctx, v)
	switch {
	case err != nil:
		x.Cookie = "the session store cannot be reached: " + err.Error()
	case v.session != nil:
		x.Cookie = "a session of this site"
		state := h.tokens.users.Latest(v.session, h.settings.ages).State
		x.Session = explain.Describe(v.session, string(state), h.settings.lifetime, h.settings.idleTimeout)
	case v.dead:
		x.Cookie = "sealed by this site, but the session has ended: it was signed out, its lifetime or idle timeout is over, or the store has lost it"
	default:
		x.Cookie = fmt.Sprintf("not sealed by this site with a secret of this configuration, or damaged (%d bytes)", len(value))
	}
}

// rules describes the require blocks that apply, and what the session's user lacks.
func (x *explaining) rules(which policy.Blocks) {
	for i, options := range x.handler.Require {
		if which&(1<<i) == 0 {
			continue
		}
		rule := explain.Rule{Paths: options.Paths, Conditions: options.conditions()}
		if x.visit.session != nil {
			decided := x.handler.decider.judge(context.Background(), x.visit, 1<<i)
			rule.Lacks = explain.LackOf(decided.reason)
		}
		x.Rules = append(x.Rules, rule)
	}
}

// conditions are the words of a require block.
func (o *Require) conditions() (words []string) {
	add := func(name string, values ...string) {
		if text := strings.Join(values, " "); text != "" {
			words = append(words, name+" "+text)
		}
	}
	add("balance", o.Balance)
	add("reserve", o.Reserve)
	for _, b := range o.Budget {
		add("budget", b.Amount, "per", b.Per)
	}
	add("email_domain", o.EmailDomain...)
	add("user", o.User...)
	return words
}

// decide decides, and says what the decision means.
func (x *explaining) decide(r *http.Request, asked policy.Demand) {
	h := x.handler
	decided := h.decider.decide(r.Context(), r, x.visit, asked)
	if decided.id != nil && policy.IsForeignWebSocket(r, h.settings.origin) {
		if asked.Access != policy.AccessOptional {
			x.Refuse(http.StatusForbidden, "refused: a page of another origin opens this WebSocket")
			return
		}
		decided.id = nil
	}
	if h.decider.isTooEarly(r, asked, decided) && x.Endpoint == "" {
		x.Refuse(http.StatusTooEarly, "refused: the request came in early data, which can be replayed; the client has to send it again after the TLS handshake")
		return
	}
	switch decided.verdict {
	case verdictPass:
		userID := ""
		if decided.id != nil {
			userID = decided.id.Text(identity.ValueID)
			x.Notes = append(x.Notes, explain.Doubts(x.visit.session, h.now(), h.settings.refreshBefore)...)
		}
		x.Pass(userID)
		if decided.charge != nil {
			x.AskLedger()
		}
	case verdictLogin:
		x.DemandLogin(r, h.settings.endpoints["start"], h.settings.loginPage)
	case verdictRefused:
		x.Refuse(http.StatusForbidden, "refused: "+explain.LackOf(decided.reason))
	case verdictLacking:
		x.DemandMoney()
	default:
		x.Refuse(http.StatusServiceUnavailable, "cannot be decided: the session store cannot be reached")
	}
	if x.Endpoint == "auth" {
		x.Status = authResponses[decided.verdict].Status
	}
}

var (
	_ doctor.Patient    = (*Handler)(nil)
	_ explain.Explainer = (*Handler)(nil)
)
