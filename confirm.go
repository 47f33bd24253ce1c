package tollgate

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

var errUserMismatch = &oauth.Error{Endpoint: oauth.EndpointUserinfo, Reason: "the access token belongs to another user than the cookie says"}

// confirm reads the user information of a session that was taken over from a cookie,
// before its first use. Requests that come together share one read. A provider or a
// store that does not answer is an error, and the session is kept; an access token that
// the provider does not accept, or that belongs to another user, ends the session.
func (h *Handler) confirm(ctx context.Context, s *session.Session) (*session.Session, error) {
	if err, failed := h.state.unconfirmed.GetIfPresent(s.ID); failed {
		return nil, err
	}
	done := h.state.confirming.DoChan(string(s.ID[:]), func() (any, error) {
		// A context of its own: one visitor's hang-up must not fail the others.
		confirmed, err := h.confirmNow(context.Background(), s)
		if err != nil && !errors.Is(err, session.ErrEnded) {
			h.state.unconfirmed.Set(s.ID, err)
		}
		return confirmed, err
	})
	select {
	case result := <-done:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*session.Session), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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
