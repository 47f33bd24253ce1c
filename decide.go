package tollgate

import (
	"context"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// verdict is what becomes of a request.
type verdict int

const (
	// verdictUnavailable: nobody can tell now.
	verdictUnavailable verdict = iota
	// verdictPass: with the identity, or as anonymous.
	verdictPass
	// verdictLogin: it needs a session and has none.
	verdictLogin
	// verdictRefused: this user may not.
	verdictRefused
	// verdictLacking: this user may, with more money.
	verdictLacking
)

// decide says what becomes of a request, and with which identity it passes: none is
// an anonymous one. It is the one place for that, whether we stand in front of the
// upstream or another proxy does, which asks.
func (h *Handler) decide(ctx context.Context, r *http.Request, v *visit, asked policy.Demand) (verdict, *identity.Identity) {
	access := asked.Access
	if access == policy.AccessPublic {
		return verdictPass, nil
	}
	err := h.openSession(ctx, v)
	switch {
	case access == policy.AccessOptional && (err != nil || v.session == nil):
		return verdictPass, nil
	case err != nil:
		h.logFault(ctx, err)
		return verdictUnavailable, nil
	case v.session == nil:
		return verdictLogin, nil
	}

	decided, id, reason := h.judge(ctx, v, asked.Blocks)
	switch {
	case access == policy.AccessOptional && decided != verdictPass:
		return verdictPass, nil
	case reason != "":
		h.audit("denied", r, v.session, zap.String("reason", reason))
	}
	return decided, id
}

// judge says whether who is signed in may pass where these require blocks apply, as
// whom, and otherwise why not.
func (h *Handler) judge(ctx context.Context, v *visit, which policy.Blocks) (decided verdict, id *identity.Identity, reason string) {
	rules := h.settings.rules.Among(which)
	need := rules.Need(h.settings.passUnknown)
	if need != nil && v.streaming {
		need.AmpleAge = h.recheckInterval() / 2
	}
	id = h.identify(ctx, v.session, need)
	ended, reason := h.hasEnded(v), h.refusal(id, rules)
	switch {
	case ended, id.Refused && h.needsSignIn(v.session):
		return verdictLogin, nil, ""
	case reason != "":
		return verdictRefused, nil, reason
	case need.Meet(id.View) == account.Lacking:
		v.short = need.Shortfall(id.View)
		return verdictLacking, nil, "balance"
	}
	return verdictPass, id, ""
}

// refusal gives the reason why this user may not pass, with any balance, or nothing.
func (h *Handler) refusal(id *identity.Identity, rules policy.Rules) (reason string) {
	if !h.mayPass(id) {
		return "status"
	}
	return rules.Refuse(id.Info)
}

// mayPass reports whether the provider calls the user active, or did so last.
func (h *Handler) mayPass(id *identity.Identity) bool {
	return !id.Refused && id.Info.IsActive(h.settings.activeStatus, h.settings.statusMissingOK)
}

// hasEnded reports whether the session ended while its user was asked for.
func (h *Handler) hasEnded(v *visit) bool {
	if v.version == h.state.sessions.Version.Load() {
		return false
	}
	_, live := h.state.sessions.Latest(v.session)
	v.dead = !live || h.state.endedNames.Has(v.session.ID.Hash(), h.now())
	return v.dead
}

// needsSignIn reports whether only a new sign-in can give a session an access token that
// the provider accepts: there is no refresh token, or it is refused.
func (h *Handler) needsSignIn(s *session.Session) bool {
	return !s.Tokens.Refreshable() || h.state.renewals.IsRefused(s)
}

// needsSignInAfter reports the same of a session in whose name the provider was asked
// something, in vain.
func (h *Handler) needsSignInAfter(err error, s *session.Session) bool {
	// The answer may be about another session of the same user: reads are shared.
	return (oauth.IsRefusedRefresh(err) || oauth.FailureOf(err) == oauth.FailureUnauthorized) && h.needsSignIn(s)
}
