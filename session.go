package tollgate

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// findSession finds the session of a visit, as new as this process knows it. No
// session is no error; an error means that nobody can tell now.
func (h *Handler) findSession(ctx context.Context, v *visit) error {
	value, ok := v.sent.SessionValue()
	if !ok {
		if v.sent.Duplicate {
			h.logger.Warn("two session cookies of one name: a sibling domain may have planted one", zap.String("cookie", h.settings.cookies.Name))
		}
		return nil
	}
	found, err := h.store.Load(ctx, value)
	if err != nil {
		return err
	}
	v.dead = found.Ours // until it turns out to live
	if found.Session == nil {
		return nil
	}
	s := found.Session
	v.version = h.state.sessions.Version.Load()
	newest, live := h.state.sessions.Latest(s)
	if !live {
		return nil
	}
	if h.tickets != nil && newest.Generation > s.Generation {
		h.state.renewals.Restore(newest, s, h.renewal(s))
	}
	if s.LastSeen.After(newest.LastSeen) {
		newest = newest.Seen(s.LastSeen)
	}
	idle := h.settings.idleTimeout
	if v.streaming {
		idle = 0
	}
	if !h.now().Before(newest.End(h.settings.lifetime, idle)) {
		return nil
	}
	v.session, v.carried, v.rewrite, v.dead = newest, s.Generation, found.Rewrite, false
	return nil
}

// OpenSession finds the session of a visit, and has its tokens renewed when that
// is due.
func (h *Handler) openSession(ctx context.Context, v *visit) error {
	if err := h.findSession(ctx, v); err != nil || v.session == nil {
		return err
	}
	renewed, err := h.renewWhenDue(ctx, v.session, h.now())
	if err == nil && h.tickets != nil && renewed.IsUnconfirmed() {
		renewed, err = h.confirm(ctx, renewed)
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

// renewedCookies gives the Set-Cookie values of an answer, when the browser should
// hold another session cookie than it does. It is asked when the header is written:
// a refresh that was finished meanwhile is delivered, and an older generation never
// overwrites a newer one.
func (h *Handler) renewedCookies(ctx context.Context, v *visit) []string {
	// A ticket stays the same however often the session behind it changes.
	carried := h.tickets != nil || (v.version == h.state.sessions.Version.Load() && v.session.Generation == v.carried)
	if carried && !v.rewrite && h.settings.idleTimeout == 0 {
		return nil
	}
	newest, live := h.state.sessions.Latest(v.session)
	if !live || h.state.sessions.IsEnding(newest) {
		return nil // another session may have taken its place in the browser
	}
	now := h.now()
	slide := newest.SlideDue(now, h.settings.idleTimeout)
	carried = h.tickets != nil || newest.Generation <= v.carried
	if carried && !v.rewrite && !slide {
		return nil
	}
	if h.settings.idleTimeout > 0 {
		newest = newest.Seen(now)
	}
	if h.tickets != nil && slide {
		newest = h.noteSeen(ctx, newest)
	}
	if h.tickets != nil && !v.rewrite {
		return nil
	}
	cookies, err := h.sessionCookies(ctx, newest, v.sent.HasSecond)
	if err != nil {
		// The session lives on in memory, and the next answer tries again.
		h.logger.Error("the session cookie cannot be written", zap.String("session", newest.ID.Hash()), zap.Error(err))
		return nil
	}
	return cookies
}

// noteSeen writes down when a session was used last, whether or not the browser waits
// for it. What somebody else has written meanwhile stays, and it looks again: a refresh
// writes twice.
func (h *Handler) noteSeen(ctx context.Context, s *session.Session) *session.Session {
	ctx = context.WithoutCancel(ctx)
	next := s
	for range 10 {
		saved, err := h.tickets.Save(ctx, next)
		if err == nil {
			return saved
		}
		var standing *session.Session
		if errors.Is(err, records.ErrMoved) {
			standing, err = h.tickets.Reread(ctx, next)
		}
		switch {
		case err != nil:
			h.logger.Warn("the use of a session cannot be written down", zap.String("session", s.ID.Hash()), zap.Error(err))
			return s
		case standing == nil:
			return s // it has ended
		case !standing.LastSeen.Before(s.LastSeen):
			return standing
		}
		next = standing.Seen(s.LastSeen)
	}
	return s
}

// sessionCookies gives the Set-Cookie values of a session.
func (h *Handler) sessionCookies(ctx context.Context, s *session.Session, hasSecond bool) ([]string, error) {
	value, err := h.store.Cookie(ctx, s)
	if err != nil {
		return nil, err
	}
	end := s.End(h.settings.lifetime, h.settings.idleTimeout)
	if h.tickets != nil {
		end = s.End(h.settings.lifetime, 0) // the idle timeout is the record's matter
	}
	return h.settings.cookies.Session(value, end.Sub(h.now()), hasSecond), nil
}

// noteDisplaced remembers that the browser has been given something else in the place of
// the session cookie that its request brought. It reports whether that is news.
func (h *Handler) noteDisplaced(v *visit) bool {
	hash, ok := v.sent.SessionHash()
	if !ok {
		return false
	}
	_, first := h.state.displaced.SetIfAbsent(hash, struct{}{})
	return first
}

// deadCookies gives the Set-Cookie values that delete the cookie of a session that has
// ended, or nothing. It may be asked more than once for an answer.
func (h *Handler) deadCookies(v *visit) []string {
	if !v.dead || v.deletions != nil || !h.noteDisplaced(v) {
		return v.deletions
	}
	v.deletions = []string{h.settings.cookies.Remove(h.settings.cookies.Name)}
	if v.sent.HasSecond {
		v.deletions = append(v.deletions, h.settings.cookies.Remove(h.settings.cookies.Name+browser.SecondChunk))
	}
	return v.deletions
}

// deleteDead has an answer that denies a request delete the cookie of a session that has
// ended.
func (h *Handler) deleteDead(w http.ResponseWriter, v *visit) {
	for _, cookie := range h.deadCookies(v) {
		w.Header().Add("Set-Cookie", cookie)
	}
}

var errUserMismatch = &oauth.Error{Endpoint: oauth.EndpointUserinfo, Reason: "the access token belongs to another user than the cookie says"}

// confirm reads the user information of a session that was taken over from a cookie,
// before its first use. Requests that come together share one read. A provider or a
// store that does not answer is an error, and the session is kept; an access token that
// the provider does not accept, or that belongs to another user, ends the session.
func (h *Handler) confirm(ctx context.Context, s *session.Session) (*session.Session, error) {
	if err, failed := h.state.unconfirmed.GetIfPresent(s.ID); failed {
		return nil, err
	}
	return h.state.confirming.Do(ctx, string(s.ID[:]), func(ctx context.Context) (*session.Session, error) {
		confirmed, err := h.confirmNow(ctx, s)
		if err != nil && !errors.Is(err, session.ErrEnded) {
			_, _ = h.state.unconfirmed.Set(s.ID, err) // the previous failure
		}
		return confirmed, err
	})
}

func (h *Handler) confirmNow(ctx context.Context, s *session.Session) (*session.Session, error) {
	standing, err := h.tickets.Reread(ctx, s)
	switch {
	case err != nil:
		return nil, err
	case standing == nil:
		return nil, session.ErrEnded
	case !standing.IsUnconfirmed():
		return standing, nil // another process has asked
	}
	// The reads of Users are shared by user id, which is what nobody knows here.
	release, err := h.users.TakeSlot()
	if err != nil {
		return nil, err
	}
	defer release()
	info, err := h.userReader(s)(ctx)
	if err == nil && info.ID() != s.User.ID() {
		err = errUserMismatch
	}
	switch {
	case err == nil:
		return h.keepConfirmed(ctx, standing, info)
	case errors.Is(err, errUserMismatch), oauth.FailureOf(err) == oauth.FailureUnauthorized:
		h.logger.Warn("a session from a cookie is not taken over: the provider does not confirm its user",
			zap.String("session", s.ID.Hash()), zap.Error(err))
		if err := h.endSession(ctx, s, h.now()); err != nil {
			return nil, err
		}
		return nil, session.ErrEnded
	default:
		return nil, err
	}
}

// keepConfirmed writes down who the user is. A refresh may write meanwhile, and then it
// looks again.
func (h *Handler) keepConfirmed(ctx context.Context, s *session.Session, info oauth.UserInfo) (*session.Session, error) {
	for range 10 {
		next := *s
		next.User = info
		saved, err := h.tickets.Save(ctx, &next)
		if !errors.Is(err, records.ErrMoved) {
			return saved, err
		}
		if s, err = h.tickets.Reread(ctx, s); err != nil {
			return nil, err
		}
		if s == nil {
			return nil, session.ErrEnded
		}
	}
	return nil, records.ErrMoved
}

// endSession makes a session no session any more, here and in its store.
func (h *Handler) endSession(ctx context.Context, s *session.Session, from time.Time) error {
	if err := h.store.End(ctx, s, from); err != nil {
		return err
	}
	h.state.sessions.End(s, from)
	return nil
}
