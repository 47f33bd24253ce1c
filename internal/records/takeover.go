package records

import (
	"context"
	"errors"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// openTicketOrSession opens a cookie value that holds a ticket, or a whole session from the
// time before this store was configured.
func openTicketOrSession(ring *keys.Ring, value string) (openedTicket, bool) {
	if t, which, ok := openTicket(ring, value); ok {
		return openedTicket{Ticket: t, ring: ring, name: t.ID.Hash(), rewrite: which > 0, old: which > 0}, true
	}
	if s, which, ok := session.OpenSession(ring, value); ok {
		t := movedTicket(s.ID, ring.Moved[which])
		return openedTicket{Ticket: t, ring: ring, name: t.ID.Hash(), rewrite: true, old: which > 0, moved: true}, true
	}
	return openedTicket{}, false
}

// moveInTime calls moveIn once for all concurrent requests with the same session. It
// continues if one of the requests is canceled.
func (t *Tickets) moveInTime(ctx context.Context, o openedTicket, value string) (*session.Session, error) {
	return t.moves.Do(ctx, o.name, func(ctx context.Context) (*session.Session, error) { return t.moveIn(ctx, o, value) })
}

// moveIn takes over a session from a cookie, in the newest generation that this process
// knows. It returns nil if the session has ended. One of the requests with this cookie
// writes the record, and the others find it.
func (t *Tickets) moveIn(ctx context.Context, o openedTicket, value string) (*session.Session, error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return nil, err
	}
	switch _, exists, err := t.Records.Get(ctx, o.name, true); {
	case err != nil:
		return nil, err
	case exists: // the session has moved already, or has ended
		return t.read(ctx, o.Ticket, o.name, true)
	}
	s, _, ok := session.OpenSession(keys, value)
	if !ok {
		return nil, nil
	}
	s, live := t.Latest(s)
	if !live || !t.Now().Before(s.Created.Add(t.Lifetime)) {
		return nil, nil
	}
	moved := *s
	moved.User = session.UnconfirmedUser(s.User)
	moved.Kept = session.Kept{Key: o.Key, Head: session.Head{Kind: session.RecordClaimed}}
	switch s, err = t.Save(ctx, &moved); {
	case errors.Is(err, session.ErrMoved):
		return t.read(ctx, o.Ticket, o.name, true)
	default:
		return s, err
	}
}
