package tollgate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/browser"
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
	if judged := checkTarget(r); judged != policy.TargetOK {
		e.Status, e.Outcome = targetRefusals[judged].Status, "refused before anything else: "+targetRefusals[judged].Title
		return e
	}
	h.settings.identity.Strip(r)
	v := &visit{sent: h.settings.cookies.Take(r.Header), explained: true}
	e.Paths = h.explainPaths(r)
	to := h.route(r)
	e.Endpoint, e.LeftOut = to.endpoint, to.leftOut
	h.explainCookie(r.Context(), e, v)
	switch {
	case to.ambiguous != unambiguous:
		e.Status, e.Outcome = http.StatusBadRequest, "refused: servers read this path in different ways, and the rules differ for them"
		if to.endpoint == "auth" {
			e.Status, e.Outcome = http.StatusUnauthorized, "`auth` refuses an ambiguous path"
		}
		return e
	case to.endpoint == "auth":
		asked, ok := h.settings.forwarding.Question(h.routes, r, originalURL(r))
		to.demand = asked.Demand
		e.Notes = append(e.Notes, "`auth` answers for the URL that the proxy in front names, so the outcome is about a request for that URL")
		if !ok || policy.ForwardsTunnel(r.Header) {
			e.Status, e.Outcome = http.StatusUnauthorized, "`auth` refuses: the proxy headers contradict each other, or name no path"
			return e
		}
	case to.endpoint != "":
		for i := range e.Paths {
			e.Paths[i].Access, e.Paths[i].By = "", nil // the rules do not apply
		}
		e.Outcome = fmt.Sprintf("the gateway's own endpoint `%s` responds; the upstream is not asked", to.endpoint)
		if row, allowed := endpointFor(to.endpoint, r.Method); row == nil {
			e.Status, e.Outcome = http.StatusMethodNotAllowed, fmt.Sprintf("the endpoint `%s` accepts only %s", to.endpoint, strings.Join(allowed, ", "))
		}
		return e
	}
	e.Access = accessNames[to.demand.Access]
	if to.demand.Access != policy.AccessPublic {
		e.Rules = h.explainRules(v, to.demand.Blocks)
	}
	h.explainOutcome(e, r, v, to.demand)
	return e
}

// accessNames are the words for who may pass.
var accessNames = map[policy.Access]string{
	policy.AccessProtected: "protected", policy.AccessOptional: "optional", policy.AccessPublic: "public",
}

// explainPaths describes the path that the client sent, and the current one if it differs.
func (h *Handler) explainPaths(r *http.Request) []explain.Path {
	sent := originalURL(r)
	paths := []explain.Path{h.explainPath("as sent", sent, r)}
	if sent.EscapedPath() != r.URL.EscapedPath() {
		paths = append(paths, h.explainPath("at tollgate", r.URL, r))
	}
	return paths
}

func (h *Handler) explainPath(name string, u *url.URL, r *http.Request) explain.Path {
	here := r.WithContext(r.Context())
	here.URL = u
	readings, complete := policy.Readings(u)
	demand, ok := h.routes.Demand(u, here)
	p := explain.Path{Name: name, Path: u.EscapedPath(), Readings: readings, Ambiguous: !ok || !complete}
	if p.Ambiguous {
		return p
	}
	p.Access = accessNames[demand.Access]
	for _, option := range []struct {
		name     string
		patterns []string
	}{{"public", h.settings.public}, {"optional", h.settings.optional}} {
		for _, pattern := range option.patterns {
			alone, err := resolve.Routes(h.ctx, nil, []string{pattern}, nil)
			if err != nil {
				continue
			}
			if d, ok := alone.Demand(u, here); ok && d.Access == policy.AccessPublic {
				p.By = append(p.By, "`"+option.name+" "+pattern+"`")
			}
		}
	}
	return p
}

// explainCookie finds the session of the request, and describes it.
func (h *Handler) explainCookie(ctx context.Context, e *explain.Explanation, v *visit) {
	value, sent := v.sent.SessionValue()
	switch {
	case v.sent.Duplicate:
		e.Cookie = "two cookies named " + h.settings.cookies.Name + ": both are rejected"
		return
	case !sent:
		e.Cookie = "no complete cookie named " + h.settings.cookies.Name
		return
	case len(h.settings.secrets) == 0 && !h.ctx.Storage().Exists(ctx, keys.StoredSecretKey):
		e.Cookie = "cannot be opened: no secret is configured, and none has been made yet"
		return
	}
	err := h.sessions.find(ctx, v)
	switch {
	case err != nil:
		e.Cookie = "the session store cannot be reached: " + err.Error()
	case v.session != nil:
		e.Cookie = "a session of this site"
		state := h.tokens.users.Latest(v.session, h.settings.ages).State
		e.Session = explain.Describe(v.session, string(state), h.settings.lifetime, h.settings.idleTimeout)
	case v.dead:
		e.Cookie = "sealed by this site, but the session has ended: it was signed out, its lifetime or idle timeout is over, or the store has lost it"
	default:
		e.Cookie = fmt.Sprintf("not sealed by this site with a secret of this configuration, or damaged (%d bytes)", len(value))
	}
}

// explainRules describes the require blocks that apply, and what the session's user lacks.
func (h *Handler) explainRules(v *visit, which policy.Blocks) (rules []explain.Rule) {
	for i, options := range h.Require {
		if which&(1<<i) == 0 {
			continue
		}
		rule := explain.Rule{Paths: options.Paths, Conditions: options.conditions()}
		if v.session != nil {
			decided := h.decider.judge(context.Background(), v, 1<<i)
			rule.Lacks = lackOf(decided)
		}
		rules = append(rules, rule)
	}
	return rules
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

// lackOf says which condition a decision found not to be met.
func lackOf(d decision) string {
	switch d.reason {
	case "balance":
		return "the balance is too low, or not known"
	case "domain":
		return "the domain of the user's e-mail address is not in the list"
	case "user":
		return "the user's id is not in the list"
	case "status":
		return "the user is not active"
	default:
		return ""
	}
}

// explainOutcome decides, and says what the decision means.
func (h *Handler) explainOutcome(e *explain.Explanation, r *http.Request, v *visit, asked policy.Demand) {
	decided := h.decider.decide(r.Context(), r, v, asked)
	if decided.id != nil && policy.IsForeignWebSocket(r, h.settings.origin) {
		if asked.Access != policy.AccessOptional {
			e.Status, e.Outcome = http.StatusForbidden, "refused: a page of another origin opens this WebSocket"
			return
		}
		decided.id = nil
	}
	switch decided.verdict {
	case verdictPass:
		e.Outcome = "passes to the upstream as anonymous"
		if decided.id != nil {
			e.Outcome = "passes to the upstream as user " + decided.id.Text(identity.ValueID)
			e.Notes = append(e.Notes, explain.Doubts(v.session, h.now(), h.settings.refreshBefore)...)
		}
		if decided.charge != nil {
			e.Notes = append(e.Notes, "before it passes, the ledger is asked whether the budget and what other requests hold leave enough: that is not part of this explanation")
		}
	case verdictLogin:
		e.Status, e.Outcome = http.StatusUnauthorized, "needs a sign-in: 401, because this is not a page navigation"
		if browser.IsNavigation(r) && !h.settings.loginPage {
			e.Status, e.Outcome = http.StatusFound, "needs a sign-in: redirected to "+h.settings.endpoints["start"]
		} else if browser.IsNavigation(r) {
			e.Outcome = "needs a sign-in: the sign-in page"
		}
	case verdictRefused:
		e.Status, e.Outcome = http.StatusForbidden, "refused: "+lackOf(decided)
	case verdictLacking:
		e.Status, e.Outcome = http.StatusPaymentRequired, "insufficient balance: "+lackOf(decided)
		e.Notes = append(e.Notes, "the gateway reads the balance from the provider again before it answers 402")
	default:
		e.Status, e.Outcome = http.StatusServiceUnavailable, "cannot be decided: the session store cannot be reached"
	}
	if e.Endpoint == "auth" {
		e.Status = authResponses[decided.verdict].status
	}
}

var (
	_ doctor.Patient    = (*Handler)(nil)
	_ explain.Explainer = (*Handler)(nil)
)
