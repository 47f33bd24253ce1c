package tollgate

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// unconfirmedUser is what a session that was taken over from a cookie keeps of its user:
// the id, which the cookie claims. Whoever knows the secret can put any id into a
// cookie, so the provider has to say whose access token it is.
func unconfirmedUser(claimed userInfo) userInfo {
	var fields [fieldCount]scalar
	fields[fieldID] = claimed.fields[fieldID]
	return newUserInfo(fields, time.Time{})
}

// isUnconfirmed reports whether only a cookie has said who the session's user is.
func (s *session) isUnconfirmed() bool { return s.user.readAt.IsZero() }

var errUserMismatch = &providerError{endpoint: endpointUserinfo, reason: "the access token belongs to another user than the cookie says"}

// confirm reads the user information of a session that was taken over from a cookie,
// before its first use. Requests that come together share one read. A provider or a
// store that does not answer is an error, and the session is kept; an access token that
// the provider does not accept, or that belongs to another user, ends the session.
func (h *Handler) confirm(ctx context.Context, s *session) (*session, error) {
	if err, failed := h.state.unconfirmed.GetIfPresent(s.id); failed {
		return nil, err
	}
	done := h.state.confirming.DoChan(string(s.id[:]), func() (any, error) {
		// A context of its own: one visitor's hang-up must not fail the others.
		confirmed, err := h.confirmNow(context.Background(), s)
		if err != nil && !errors.Is(err, errSessionEnded) {
			h.state.unconfirmed.Set(s.id, err)
		}
		return confirmed, err
	})
	select {
	case result := <-done:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*session), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *Handler) confirmNow(ctx context.Context, s *session) (*session, error) {
	standing, err := h.tickets.reread(ctx, s)
	switch {
	case err != nil:
		return nil, err
	case standing == nil:
		return nil, errSessionEnded
	case !standing.isUnconfirmed():
		return standing, nil // another process has asked
	}
	// The reads of userInfos are shared by user id, which is what nobody knows here.
	release, err := h.users.takeSlot()
	if err != nil {
		return nil, err
	}
	defer release()
	info, err := h.userReader(s)(ctx)
	if err == nil && info.id() != s.user.id() {
		err = errUserMismatch
	}
	switch {
	case err == nil:
		return h.keepConfirmed(ctx, standing, info)
	case errors.Is(err, errUserMismatch), failureOf(err) == failureUnauthorized:
		h.logger.Warn("a session from a cookie is not taken over: the provider does not confirm its user",
			zap.String("session", s.id.hash()), zap.Error(err))
		if err := h.endSession(ctx, s, h.now()); err != nil {
			return nil, err
		}
		return nil, errSessionEnded
	default:
		return nil, err
	}
}

// keepConfirmed writes down who the user is. A refresh may write meanwhile, and then it
// looks again.
func (h *Handler) keepConfirmed(ctx context.Context, s *session, info userInfo) (*session, error) {
	for range 10 {
		next := *s
		next.user = info
		saved, err := h.tickets.save(ctx, &next)
		if !errors.Is(err, errRecordMoved) {
			return saved, err
		}
		if s, err = h.tickets.reread(ctx, s); err != nil {
			return nil, err
		}
		if s == nil {
			return nil, errSessionEnded
		}
	}
	return nil, errRecordMoved
}
