// Package records keeps sessions on a server: in sealed records, with an index of each
// user's sessions, and a ticket for the browser that holds the record's key.
//
// Where the records are stored is behind the interface Store; Caddy's storage and Redis
// have a package each in stores/. Begin with Tickets.
package records

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Store is a place for records that several processes may share: Caddy's
// storage, or Redis. It compares revisions and knows nothing else of a record.
//
// Names are hex digits. An error means that the place cannot say, or cannot write,
// now; a record that is not there is none.
type Store interface {
	// Get reads a record. What it gives may be a second old: a write from elsewhere
	// shows within that. With fresh it is what stands there now.
	Get(ctx context.Context, name string, fresh bool) (text string, ok bool, err error)

	// Replace writes a record in the place of the one with the given revision, or, with
	// revision 0, where there is none. It is atomic, and false when something else
	// stands there.
	Replace(ctx context.Context, name string, revision uint64, r *Record) (bool, error)

	// Remove deletes a record. One that is not there is no error.
	Remove(ctx context.Context, name string) error

	// AddToIndex notes that a user has this record, until it expires.
	AddToIndex(ctx context.Context, user, name string, expires time.Time) error

	// RemoveFromIndex takes such a note back.
	RemoveFromIndex(ctx context.Context, user, name string) error

	// Index gives the names that were noted for a user. Some may be gone.
	Index(ctx context.Context, user string) ([]string, error)

	// TryLock takes the lock of a name, or says false where somebody has it. A lock
	// that is not renewed for as long as the lease is anybody's.
	TryLock(ctx context.Context, name string, lease time.Duration) (Lock, bool, error)

	// Ready reports whether records can be written now.
	Ready(ctx context.Context) error

	// Hold keeps the place open beyond close until it is let go.
	Hold() (release func())

	// Close lets go of what the place holds.
	Close()
}

// Lock is a lock that is held.
type Lock interface {
	// Renew begins the lease again. It fails when the lock was lost.
	Renew(ctx context.Context) error
	// Release gives the lock back, if it is still held.
	Release(ctx context.Context) error
}

// ErrMoved: in the place of the revision that was to be replaced stands
// another one by now, or none.
var ErrMoved = errors.New("the session's record was changed by somebody else")

// MaxRecord bounds a record in bytes. The largest honest one holds two tokens of a
// few kilobytes.
const MaxRecord = 64 << 10

// Bounds of what a Tickets remembers in the process.
const (
	maxParsedBytes = 128 << 20
	// ProbeInterval is the least time between two looks at whether records can be
	// written: anybody may ask.
	ProbeInterval = time.Second
)

// Tickets keeps sessions in records, and gives the browser a ticket. A copy of
// the records gives away no token, e-mail address or id, since the tickets hold the
// keys; a ticket is worth nothing once the record is gone.
type Tickets struct {
	session.Env
	Records Store
	cookies session.Takeover
	opened  *session.OpenedValues[openedTicket]
	// parsed holds sessions as they were read from their records, by name.
	parsed *otter.Cache[string, *parsedRecord]

	moves  flight.Group[*session.Session]
	probes flight.Group[struct{}]
	probed atomic.Pointer[probeResult]
}

// openedTicket is what a cookie value was opened to.
type openedTicket struct {
	Ticket
	name string
	// rewrite: the ticket was sealed with a previous secret, or is none.
	rewrite bool
	// moved: the value is no ticket, but a whole session.
	moved bool
}

// parsedRecord is a record's text and the session that was read from it.
type parsedRecord struct {
	text    string
	session *session.Session
}

type probeResult struct {
	at  time.Time
	err error
}

func NewTickets(env session.Env, records Store, cookies session.Takeover) *Tickets {
	return &Tickets{
		Env:     env,
		Records: records,
		cookies: cookies,
		opened:  session.NewOpenedValues[openedTicket](),
		parsed: otter.Must(&otter.Options[string, *parsedRecord]{
			MaximumWeight: maxParsedBytes,
			Weigher:       func(_ string, p *parsedRecord) uint32 { return uint32(3*len(p.text)) + 1024 },
		}),
	}
}

func (t *Tickets) Load(ctx context.Context, value string) (session.Found, error) {
	o, ok := t.opened.Get(value)
	if !ok {
		keys, err := t.Keys(ctx)
		if err != nil {
			return session.Found{}, err
		}
		if o, ok = openTicketOrSession(keys, value); !ok {
			return session.Found{}, nil
		}
		t.opened.Put(value, o)
	}
	if o.moved && !t.cookies.Open(t.Now()) {
		return session.Found{Ours: true}, nil
	}
	s, err := t.read(ctx, o.Ticket, o.name, false)
	if err != nil {
		return session.Found{}, err
	}
	if s == nil && o.moved {
		if s, err = t.moveInTime(ctx, o, value); err != nil {
			return session.Found{}, err
		}
	}
	return session.Found{Session: s, Ours: true, Rewrite: o.rewrite}, nil
}

// openTicketOrSession opens a ticket, or the whole session that a cookie held before
// this store was configured.
func openTicketOrSession(ring *keys.Ring, value string) (openedTicket, bool) {
	if t, which, ok := openTicket(ring, value); ok {
		return openedTicket{Ticket: t, name: t.ID.Hash(), rewrite: which > 0}, true
	}
	if s, which, ok := session.OpenSession(ring, value); ok {
		t := movedTicket(s.ID, ring.Moved[which])
		return openedTicket{Ticket: t, name: t.ID.Hash(), rewrite: true, moved: true}, true
	}
	return openedTicket{}, false
}

// read gives the session of a ticket, or nil when there is none.
func (t *Tickets) read(ctx context.Context, of Ticket, name string, fresh bool) (*session.Session, error) {
	if t.Ended.Has(name, t.Now()) {
		return nil, nil
	}
	text, ok, err := t.Records.Get(ctx, name, fresh)
	if err != nil || !ok {
		return nil, err
	}
	known, ok := t.parsed.GetIfPresent(name)
	if !ok || known.text != text || known.session.Kept.Key != of.Key {
		s, ok := readRecord(text, of, name)
		if !ok {
			return nil, nil
		}
		known = &parsedRecord{text, s}
		t.parsed.Set(name, known)
	}
	if !t.Now().Before(known.session.Kept.Expires) {
		return nil, nil
	}
	return known.session, nil
}

// readRecord reads the session from its record. The id in it is compared, so that no
// mix-up on the way from the store gives one user another's session
// (go-redis CVE-2025-29923).
func readRecord(text string, of Ticket, name string) (*session.Session, bool) {
	r, ok := ParseRecord(text)
	if !ok || r.Kind == session.RecordGone {
		return nil, false
	}
	plain, ok := OpenRecord(of.Key, name, r.Sealed)
	if !ok {
		return nil, false
	}
	s, err := session.ParseSession(plain)
	if err != nil || s.ID != of.ID {
		return nil, false
	}
	s.Kept = session.Kept{Key: of.Key, Head: r.Head}
	return s, true
}

// moveInTime moves a session in, together with everybody else who carries its cookie,
// and whoever leaves meanwhile.
func (t *Tickets) moveInTime(ctx context.Context, o openedTicket, value string) (*session.Session, error) {
	return t.moves.Do(ctx, o.name, func(ctx context.Context) (*session.Session, error) { return t.moveIn(ctx, o, value) })
}

// moveIn takes over a session that stood in a cookie so far, as new as this process
// knows it, or gives nil when it has ended. Of the requests that carry the cookie
// one writes the record, and the others find it.
func (t *Tickets) moveIn(ctx context.Context, o openedTicket, value string) (*session.Session, error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return nil, err
	}
	switch _, standing, err := t.Records.Get(ctx, o.name, true); {
	case err != nil:
		return nil, err
	case standing: // it has moved, or it has ended
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
	moved.Kept = session.Kept{Key: o.Key, Head: session.Head{Kind: session.RecordMoved}}
	switch s, err = t.Save(ctx, &moved); {
	case errors.Is(err, ErrMoved):
		return t.read(ctx, o.Ticket, o.name, true)
	default:
		return s, err
	}
}

func (t *Tickets) Create(ctx context.Context, s *session.Session) (*session.Session, error) {
	made := *s
	made.Kept = session.Kept{Head: session.Head{Kind: session.RecordLive}}
	rand.Read(made.Kept.Key[:]) // never fails: the runtime ends the program instead
	return t.Save(ctx, &made)
}

// Save writes s in the place of the revision that it came from, and gives it back
// with its own. ErrMoved says that something else stands there.
func (t *Tickets) Save(ctx context.Context, s *session.Session) (*session.Session, error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return nil, err
	}
	next := *s
	next.Kept.Revision++
	next.Kept.Created, next.Kept.LastSeen = s.Created, s.LastSeen
	if end := s.Created.Add(t.Lifetime); next.Kept.Expires.IsZero() {
		next.Kept.Expires = end
	}
	name := s.ID.Hash()
	if user := UserIndexName(keys.Index[0], s.User.ID()); user != s.Kept.User {
		// Before the record: what is in a record can be found.
		if err := t.Records.AddToIndex(ctx, user, name, next.Kept.Expires); err != nil {
			return nil, fmt.Errorf("writing the session: %w", err)
		}
		next.Kept.User = user
	}
	sealed, err := SealRecord(s.Kept.Key, name, next.AppendBinary(nil))
	if err != nil {
		return nil, err
	}
	if len(sealed) > MaxRecord {
		return nil, fmt.Errorf("%w (%d bytes)", session.ErrTooLarge, len(sealed))
	}
	replaced, err := t.Records.Replace(ctx, name, s.Kept.Revision, &Record{next.Kept.Head, sealed})
	switch {
	case err != nil:
		return nil, fmt.Errorf("writing the session: %w", err)
	case !replaced:
		return nil, ErrMoved
	}
	return &next, nil
}

// Reread reads the session of s as it stands in the store now; nil when it has ended.
func (t *Tickets) Reread(ctx context.Context, s *session.Session) (*session.Session, error) {
	return t.read(ctx, Ticket{s.ID, s.Kept.Key}, s.ID.Hash(), true)
}

func (t *Tickets) Cookie(ctx context.Context, s *session.Session) (string, error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return "", err
	}
	if UserIndexName(keys.Index[0], s.User.ID()) != s.Kept.User {
		// The secret has changed. Whoever looks for the user's sessions with the new one
		// alone, one day, finds this one, too.
		if _, err := t.Save(ctx, s); err != nil && !errors.Is(err, ErrMoved) {
			return "", err
		}
	}
	return keys.Ticket.Seal(Ticket{s.ID, s.Kept.Key}.AppendBinary(nil))
}

func (t *Tickets) End(ctx context.Context, s *session.Session, from time.Time) error {
	_, err := t.EndByName(ctx, s.ID.Hash(), from)
	return err
}

// EndByName ends the session of a record, now or at a moment to come, and reports
// whether there was one.
func (t *Tickets) EndByName(ctx context.Context, name string, from time.Time) (bool, error) {
	for range 10 { // somebody else's write in between makes it look again
		text, ok, err := t.Records.Get(ctx, name, true)
		if err != nil || !ok {
			return false, err
		}
		r, ok := ParseRecord(text)
		if !ok {
			return false, t.Records.Remove(ctx, name)
		}
		if r.Kind == session.RecordGone || !t.Now().Before(r.Expires) {
			return false, nil
		}
		done, err := t.endRecord(ctx, name, r, from)
		if done {
			t.Ended.Add(name, from, r.Created)
		}
		if done || err != nil {
			return done, err
		}
	}
	return false, ErrMoved
}

func (t *Tickets) endRecord(ctx context.Context, name string, r *Record, from time.Time) (bool, error) {
	next := *r
	next.Revision++
	switch {
	case r.Kind == session.RecordMoved:
		// The cookie that the session was moved from still opens: it ends at once, since
		// nothing may be forgotten before that cookie's own end.
		next = Record{Head: session.Head{
			Revision: next.Revision, Expires: r.Created.Add(session.MaxLifetime), Created: r.Created, LastSeen: r.LastSeen, Kind: session.RecordGone,
		}}
	case from.After(t.Now()):
		next.Expires = session.Earlier(r.Expires, from)
	default:
		if err := t.Records.Remove(ctx, name); err != nil {
			return false, err
		}
		t.parsed.Invalidate(name)
		_ = t.Records.RemoveFromIndex(ctx, r.User, name) // else the next list tidies it away
		return true, nil
	}
	return t.Records.Replace(ctx, name, r.Revision, &next)
}

// Summary is what can be said of a session without its ticket.
type Summary struct {
	Name string
	session.Head
}

// SessionsOf lists the sessions of a user. Index entries whose session is gone are
// tidied away.
func (t *Tickets) SessionsOf(ctx context.Context, userID string) ([]Summary, error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var sessions []Summary
	for _, key := range keys.Index {
		user := UserIndexName(key, userID)
		names, err := t.Records.Index(ctx, user)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, ok, err := t.Records.Get(ctx, name, true)
			if err != nil {
				return nil, err
			}
			r, parsed := ParseRecord(text)
			switch {
			case !ok || !parsed || r.Kind == session.RecordGone || t.Ended.Has(name, t.Now()) || !t.Now().Before(r.Expires):
				if err := t.Records.RemoveFromIndex(ctx, user, name); err != nil {
					return nil, err
				}
			case r.User == user:
				sessions = append(sessions, Summary{name, r.Head})
			}
		}
	}
	return sessions, nil
}

// Ready looks at most once in ProbeInterval whether records can be written.
func (t *Tickets) Ready(ctx context.Context) error {
	if last := t.probed.Load(); last != nil && flight.Within(time.Since(last.at), ProbeInterval) {
		return last.err
	}
	_, err := t.probes.Do(ctx, "", func(ctx context.Context) (struct{}, error) {
		_, err := t.Keys(ctx)
		if err == nil {
			err = t.Records.Ready(ctx)
		}
		t.probed.Store(&probeResult{time.Now(), err})
		return struct{}{}, err
	})
	return err
}

func (t *Tickets) Close() {
	t.opened.Close()
	t.parsed.StopAllGoroutines()
	t.Records.Close()
}

// Interface guard.
var _ session.Store = (*Tickets)(nil)
