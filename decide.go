package tollgate

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/charging"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// verdict is what happens to a request.
type verdict int

const (
	// verdictUnavailable: the store or the provider cannot be reached, so the request cannot
	// be decided.
	verdictUnavailable verdict = iota
	// verdictPass: the request passes, with the identity or as anonymous.
	verdictPass
	// verdictLogin: the request needs a session and has none.
	verdictLogin
	// verdictRefused: this user is not allowed.
	verdictRefused
	// verdictLacking: this user is allowed, but the balance is too low.
	verdictLacking
	// verdictOverBudget: this user is allowed, but a budget is used up.
	verdictOverBudget
	// verdictUnchecked: it is not known whether the request can be paid.
	verdictUnchecked
)

// decision is a verdict with its details.
type decision struct {
	verdict verdict
	// id is nil for an anonymous request, and for one that does not pass.
	id *identity.Identity
	// reason is the audit line's reason why a signed-in user is denied.
	reason string
	// cause is why the request cannot be decided. It is set with verdictUnavailable, and with
	// verdictUnchecked if the ledger is the cause.
	cause string
	// short is the amount missing from the balance. It is set with verdictLacking only.
	short *account.Shortfall
	// charge is what the request holds if it is passed on. nil: nothing, and no budget
	// counts.
	charge *policy.Charge
	// held is the hold of an admitted request.
	held *spending.Held
	// available is the money that nothing holds. It is set with verdictLacking if the request
	// would have held some.
	available *string
	// over is the budget that is used up. It is set with verdictOverBudget only.
	over *charging.SpentBudget
	// retryAfter is set with verdictUnchecked only.
	retryAfter time.Duration
}

// decider decides who passes.
type decider struct {
	settings *settings
	sessions *sessions
	tokens   *tokens
	holds    *charging.Holds // nil if no rule has a reserve or a budget
	audit    *audit.Log
	metrics  *metrics.Set
}

// decide decides whether a request passes, and with which identity. Both modes use it: the
// gateway in front of the upstream, and the `auth` endpoint for another proxy.
func (d *decider) decide(ctx context.Context, r *http.Request, v *visit, asked policy.Demand) decision {
	anonymous := decision{verdict: verdictPass}
	if asked.Access == policy.AccessPublic {
		return anonymous
	}
	optional := asked.Access == policy.AccessOptional
	err := d.sessions.open(ctx, v)
	switch {
	case optional && (err != nil || v.session == nil):
		return anonymous
	case err != nil:
		return decision{verdict: verdictUnavailable, cause: d.audit.Fault(ctx, r, err)}
	case v.session == nil:
		return decision{verdict: verdictLogin}
	}

	decided := d.judge(ctx, v, asked.Blocks)
	switch {
	case optional && decided.verdict != verdictPass:
		return anonymous
	case decided.reason != "":
		d.audit.Event(audit.Denied, r, v.session, decided.reason)
	}
	return decided
}

// judge decides whether the signed-in user meets the given require blocks. If one of
// them has `reserve`, it leaves the balance of an ordinary request to admit, which asks the ledger.
func (d *decider) judge(ctx context.Context, v *visit, which policy.Blocks) decision {
	rules := d.settings.rules.Among(which)
	need := rules.Need(d.settings.passUnknown)
	var charge *policy.Charge
	if d.settings.charge != nil {
		charge = rules.Charge()
	}
	if charge != nil && charge.Reserve {
		need = charging.NeedOf(v.streaming, d.settings.passUnknown)
	}
	if need != nil && v.streaming {
		need.AmpleAge = d.settings.recheckInterval() / 2
	}
	var id *identity.Identity
	if v.explained {
		id = &identity.Identity{Session: v.session, View: d.tokens.users.Latest(v.session, d.settings.ages)}
	} else {
		id = d.tokens.identify(ctx, v.session, need)
	}
	ended, reason := d.sessions.hasEnded(v), d.refusal(id, rules)
	switch {
	case ended, id.Refused && d.tokens.needsSignIn(v.session):
		return decision{verdict: verdictLogin}
	case reason != "":
		return decision{verdict: verdictRefused, reason: reason}
	}
	if short := d.lack(v, need, id); short != nil {
		return decision{verdict: verdictLacking, reason: "balance", short: short}
	}
	return decision{verdict: verdictPass, id: id, charge: charge}
}

// isTooEarly reports whether a request that would pass with an identity may be a replay, and may
// change something or cost money.
func (d *decider) isTooEarly(r *http.Request, asked policy.Demand, decided decision) bool {
	if decided.id == nil || !policy.IsEarly(r) {
		return false
	}
	costs := decided.charge != nil || d.settings.rules.Among(asked.Blocks).Need(d.settings.passUnknown) != nil
	return costs || !policy.IsSafe(r.Method)
}

// admit asks the ledger whether a request that meets the rules can be paid. With dry it takes
// no hold.
func (d *decider) admit(r *http.Request, v *visit, asked policy.Demand, decided decision, dry bool) decision {
	before := decided.id.View.Info
	result := decided.with(d.holds.Admit(r.Context(), v.session, decided.id, decided.charge, dry))
	if result.verdict == verdictPass && decided.id.View.Info != before { // it waited for a reading
		result = d.judgeAgain(v, asked, result)
	}
	switch {
	case asked.Access == policy.AccessOptional && result.verdict != verdictPass:
		return decision{verdict: verdictPass} // as anonymous
	case result.reason != "" && !dry:
		d.audit.Event(audit.Denied, r, v.session, result.reason)
	}
	return result
}

// with is the decision after the ledger's answer about a request that meets the rules.
func (dn decision) with(answer charging.Answer) decision {
	switch answer.Verdict {
	case charging.Admitted:
		dn.held = answer.Held
		return dn
	case charging.Lacking:
		return decision{verdict: verdictLacking, reason: "balance", short: answer.Short, available: answer.Available}
	case charging.OverBudget:
		return decision{verdict: verdictOverBudget, reason: "budget", over: answer.Over}
	default:
		return decision{verdict: verdictUnchecked, retryAfter: answer.RetryAfter, cause: answer.Cause}
	}
}

// judgeAgain checks after a wait that the session still lives, and that the user may pass.
func (d *decider) judgeAgain(v *visit, asked policy.Demand, result decision) decision {
	ended, reason := d.sessions.hasEnded(v), d.refusal(result.id, d.settings.rules.Among(asked.Blocks))
	if !ended && reason == "" {
		return result
	}
	if result.held != nil {
		_, _ = result.held.Settle(context.Background(), spending.Free, spending.Amount{}) // the Keeper repeats it
	}
	if ended {
		return decision{verdict: verdictLogin}
	}
	return decision{verdict: verdictRefused, reason: reason}
}

// lack says why the balance is too low, or returns nil.
func (d *decider) lack(v *visit, need *account.Need, id *identity.Identity) *account.Shortfall {
	if !v.streaming {
		return d.tokens.users.Lack(v.session, need, id.View)
	}
	if need.Meet(id.View) != account.Lacking {
		return nil
	}
	return need.Shortfall(id.View)
}

// refusal returns the reason why this user may not pass, whatever the balance. It is empty
// if the user may pass.
func (d *decider) refusal(id *identity.Identity, rules policy.Rules) (reason string) {
	if !d.mayPass(id) {
		return "status"
	}
	return rules.Refuse(id.Info)
}

// mayPass reports whether the user was active according to the last answer of the provider.
func (d *decider) mayPass(id *identity.Identity) bool {
	return !id.Refused && id.Info.IsActive(d.settings.activeStatus, d.settings.statusMissingOK)
}

// hasEnded reports whether the session ended while the user information was being read.
func (ss *sessions) hasEnded(v *visit) bool {
	if v.version == ss.state.sessions.Version.Load() {
		return false
	}
	_, live := ss.state.sessions.Latest(v.session)
	v.dead = !live || ss.state.endedNames.Has(v.session.ID.Hash(), ss.now())
	return v.dead
}

// needsSignIn reports whether the session can get a valid access token only by a new
// sign-in: it has no refresh token, or the provider refuses the refresh token.
func (t *tokens) needsSignIn(s *session.Session) bool {
	return !s.Tokens.Refreshable() || t.state.renewals.IsRefused(s)
}

// needsSignInAfter reports whether a new sign-in is needed after a request to the provider
// with the session's tokens failed with err.
func (t *tokens) needsSignInAfter(err error, s *session.Session) bool {
	// Reads are shared per user, so err may come from another session of the same user.
	return (oauth.IsRefusedRefresh(err) || oauth.FailureOf(err) == oauth.FailureUnauthorized) && t.needsSignIn(s)
}
