package tollgate

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// sessions finds, renews and ends the sessions of requests.
type sessions struct {
	settings *settings
	store    session.Store
	state    *siteState
	tokens   *tokens
	now      func() time.Time
	logger   *zap.Logger
	audit    *audit.Log
}

// find finds the newest generation of the visit's session that this process knows.
// Without a session v.session stays nil and the error is nil. An error means that the
// store could not answer.
func (ss *sessions) find(ctx context.Context, v *visit) error {
	value, ok := v.sent.SessionValue()
	if !ok {
		if v.sent.Duplicate {
			ss.audit.Rarely(zap.WarnLevel, "two session cookies with the same name: a sibling domain may have planted one", "",
				zap.String("cookie", ss.settings.cookies.Name))
		}
		return nil
	}
	found, err := ss.store.Load(ctx, value)
	v.cookieOf = found.ID
	if err != nil {
		return err
	}
	v.dead = found.Ours // cleared below if the session is live
	if found.Session == nil {
		return nil
	}
	s := found.Session
	v.version = ss.state.sessions.Version.Load()
	newest, live := ss.state.sessions.Latest(s)
	if !live {
		return nil
	}
	if found.Stored && newest.Generation > s.Generation {
		ss.state.renewals.Restore(ctx, newest, s, ss.tokens.renewal(s))
	}
	if s.LastSeen.After(newest.LastSeen) {
		newest = newest.Seen(s.LastSeen)
	}
	idle := ss.settings.idleTimeout
	if v.streaming {
		idle = 0
	}
	if !ss.now().Before(newest.End(ss.settings.lifetime, idle)) {
		return nil
	}
	v.session, v.carried, v.rewrite, v.dead, v.known = newest, s.Generation, found.Rewrite, false, true
	return nil
}

// open finds the session of a visit, and refreshes its tokens if that is due.
func (ss *sessions) open(ctx context.Context, v *visit) error {
	if err := ss.find(ctx, v); err != nil || v.session == nil {
		return err
	}
	if v.explained {
		if hasRunOut(v.session, ss.now()) {
			v.session, v.dead = nil, true
		}
		return nil
	}
	renewed, err := ss.tokens.renewWhenDue(ctx, v.session, ss.now())
	if err == nil && renewed.IsUnconfirmed() {
		renewed, err = ss.confirm(ctx, renewed)
	}
	v.session = renewed
	switch {
	case errors.Is(err, session.ErrEnded):
		v.dead = true
		return nil
	case oauth.IsRefusedRefresh(err):
		v.session, v.dormant = nil, true
		return nil
	}
	return err
}

// renewedCookies gives the Set-Cookie values for a response, if the browser needs another
// session cookie than the one it sent. It is called when the response header is written:
// so a refresh that finished meanwhile is delivered, and an older generation never
// overwrites a newer one.
func (ss *sessions) renewedCookies(ctx context.Context, v *visit) []string {
	if !v.rewrite && ss.settings.idleTimeout == 0 && v.session.Generation == v.carried && v.version == ss.state.sessions.Version.Load() {
		return nil
	}
	newest, live := ss.state.sessions.Latest(v.session)
	if !live || ss.state.sessions.IsEnding(newest) {
		return nil // another session may have taken its place in the browser
	}
	now := ss.now()
	change := session.Change{
		Rewrite: v.rewrite,
		Renewed: newest.Generation > v.carried,
		Used:    newest.SlideDue(now, ss.settings.idleTimeout),
	}
	if ss.settings.idleTimeout > 0 {
		newest = newest.Seen(now)
	}
	needed := ss.store.Deliver(change)
	if needed.Save {
		newest = ss.saveSeen(ctx, newest, now)
	}
	if !needed.Cookie {
		return nil
	}
	cookies, err := ss.cookies(ctx, newest, v.sent.HasSecond)
	if err != nil {
		// The session stays in memory, and the next response tries again.
		ss.audit.StoreFailed("cannot write the session cookie; the next response tries again", newest, err)
		return nil
	}
	return cookies
}

// saveSeen saves that a session was used now. It continues if the browser goes away.
func (ss *sessions) saveSeen(ctx context.Context, s *session.Session, now time.Time) *session.Session {
	first := true
	saved, err := session.Update(context.WithoutCancel(ctx), ss.store, s, func(standing *session.Session) *session.Session {
		if !first && !standing.LastSeen.Before(now) {
			return nil
		}
		first = false
		return standing.Seen(now)
	})
	switch {
	case err == nil:
		return saved
	case !errors.Is(err, session.ErrEnded):
		ss.audit.StoreFailed("cannot save when a session was last used", s, err)
	}
	return s
}

// cookies gives the Set-Cookie values of a session.
func (ss *sessions) cookies(ctx context.Context, s *session.Session, hasSecond bool) ([]string, error) {
	value, end, err := ss.store.Cookie(ctx, s)
	if err != nil {
		return nil, err
	}
	return ss.settings.cookies.Session(value, end.Sub(ss.now()), hasSecond), nil
}

// A session that has ended leaves its cookie in the browser, with sealed tokens in it if
// the cookie is the whole session. The response that denies a request deletes it.
//
// That response may be late. While the request waits, another tab of the same browser may
// have signed in again, and the deletion would then hit the cookie of the new session: a
// deletion names no value. So this process remembers for a while the sessions whose cookie
// it has deleted or replaced. It remembers their ids and not the cookies' values: a
// session's cookie changes with each refresh, and the late request may bring an older
// value. Two gaps remain: the time that a response is on its way, and other gateways.
//
// Only a value that this site has sealed is deleted. Any other one may belong to another
// site with the same host and cookie name.

// noteDisplaced remembers that a sign-in or a sign-out has replaced or deleted the session
// cookie of this request. From then on no response deletes a cookie because of the session
// that this cookie belonged to.
func (ss *sessions) noteDisplaced(v *visit) {
	if v.cookieOf != (session.ID{}) {
		ss.state.displaced.Set(v.cookieOf, struct{}{})
	}
}

// deadCookies gives the Set-Cookie values that delete the cookie of an ended session. It is
// nil if there is nothing to delete. It may be called more than once per response.
func (ss *sessions) deadCookies(v *visit) []string {
	if !v.dead || v.deletions != nil {
		return v.deletions
	}
	if first := ss.state.displaced.SetIfAbsent(v.cookieOf, struct{}{}); !first {
		return nil
	}
	v.deletions = ss.settings.cookies.RemoveSession(&v.sent)
	return v.deletions
}

// deleteDead adds the deletion of an ended session's cookie to a response that denies a
// request.
func (ss *sessions) deleteDead(w http.ResponseWriter, v *visit) {
	for _, cookie := range ss.deadCookies(v) {
		w.Header().Add("Set-Cookie", cookie)
	}
}

var errUserMismatch = &oauth.Error{
	Endpoint: oauth.EndpointUserinfo, Because: cause.InvalidResponse,
	Reason: "the access token belongs to another user than the one named in the cookie",
}

// confirm reads the user information of a session that was migrated from a cookie, before
// its first use. Concurrent requests share one read. If the provider or the store does not
// answer, it returns an error and keeps the session. If the provider does not accept the
// access token, or the token belongs to another user, it ends the session.
func (ss *sessions) confirm(ctx context.Context, s *session.Session) (*session.Session, error) {
	if err, failed := ss.state.unconfirmed.Get(s.ID); failed {
		return nil, err
	}
	return ss.state.confirming.Do(ctx, string(s.ID[:]), func(ctx context.Context) (*session.Session, error) {
		confirmed, err := ss.confirmNow(ctx, s)
		if err != nil && !errors.Is(err, session.ErrEnded) {
			ss.state.unconfirmed.Set(s.ID, err)
		}
		return confirmed, err
	})
}

func (ss *sessions) confirmNow(ctx context.Context, s *session.Session) (*session.Session, error) {
	standing, err := ss.store.Reread(ctx, s)
	switch {
	case err != nil:
		return nil, err
	case standing == nil:
		return nil, session.ErrEnded
	case !standing.IsUnconfirmed():
		return standing, nil // another process has confirmed it
	}
	// The reads of Users are shared by user id, and the user id is not confirmed yet.
	release, err := ss.tokens.users.TakeSlot()
	if err != nil {
		return nil, err
	}
	defer release()
	info, err := ss.tokens.userReader(s)(ctx)
	if err == nil && info.ID() != s.User.ID() {
		err = errUserMismatch
	}
	switch {
	case err == nil:
		return session.Update(ctx, ss.store, standing, func(standing *session.Session) *session.Session {
			confirmed := *standing
			confirmed.User = info
			return &confirmed
		})
	case errors.Is(err, errUserMismatch), oauth.FailureOf(err) == oauth.FailureUnauthorized:
		ss.logger.Warn("a session from a cookie is not taken over: the provider does not confirm its user",
			zap.String("session", s.ID.Hash()), zap.Error(err))
		if err := ss.end(ctx, s, ss.now()); err != nil {
			return nil, err
		}
		return nil, session.ErrEnded
	default:
		return nil, err
	}
}

// end ends a session in the store and in this process. from is the moment from which
// on requests are refused.
func (ss *sessions) end(ctx context.Context, s *session.Session, from time.Time) error {
	if err := ss.store.End(ctx, s, from); err != nil {
		return err
	}
	ss.state.sessions.End(s, from)
	return nil
}
