// Package records keeps sessions on a server: in sealed records, with an index of each
// user's sessions. The browser gets a ticket, which holds the record's key.
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
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// Store keeps records: in Caddy's storage, or in Redis. Several processes may share it. It
// compares revisions, and reads nothing else of a record.
//
// Names are hex digits. An error means that the store cannot read or write now. A record
// that does not exist is not an error. All methods may be called concurrently.
type Store interface {
	// Get reads a record. ok is false if it does not exist. If fresh is false, the text may
	// be up to a second old.
	Get(ctx context.Context, name string, fresh bool) (text string, ok bool, err error)

	// Replace atomically replaces the record with the given revision. With revision 0 it
	// writes a record that must not exist yet. It returns false, and writes nothing, if the
	// store holds another revision.
	Replace(ctx context.Context, name string, revision uint64, r *Record) (bool, error)

	// Remove deletes a record. It is no error if the record does not exist.
	Remove(ctx context.Context, name string) error

	// AddToIndex adds a record to the index of a user, until it expires.
	AddToIndex(ctx context.Context, user, name string, expires time.Time) error

	// RemoveFromIndex removes a record from the index of a user.
	RemoveFromIndex(ctx context.Context, user, name string) error

	// Index returns the names of a user's records. Some of the records may not exist any
	// more.
	Index(ctx context.Context, user string) ([]string, error)

	// Names returns the names of all records. Those that are written meanwhile may be missing.
	Names(ctx context.Context) ([]string, error)

	// TryLock takes the lock of a name. It returns false if another process holds it. A lock
	// that is not renewed ends with its lease.
	TryLock(ctx context.Context, name string, lease time.Duration) (session.Lock, bool, error)

	// Ledger returns the ledger of what users spend, which is kept beside the records. Its
	// users are named as in the index. lease is that of holds; zero is the usual one.
	Ledger(lease time.Duration) spending.Ledger

	// Ready returns nil if records can be written now.
	Ready(ctx context.Context) error

	// Hold keeps the store usable after Close, until release is called.
	Hold() (release func())

	// Close releases the store's resources.
	Close()
}

// MaxRecord is the maximum size of a sealed session in bytes. The largest honest one holds
// two tokens of a few kilobytes.
const MaxRecord = 64 << 10

const (
	// maxParsedBytes is the maximum weight of the cache of parsed records.
	maxParsedBytes = 128 << 20
	// ProbeInterval is the minimum time between two checks whether records can be written,
	// because anybody may request such a check.
	ProbeInterval = time.Second
)

// Tickets is the session store that keeps sessions in records and gives the browser a
// ticket. A copy of the records reveals no token, e-mail address or id, because only the
// tickets hold the keys. A ticket is worthless after its record was deleted.
type Tickets struct {
	session.Env
	Records Store
	cookies session.Takeover
	opened  *session.OpenedValues[openedTicket]
	// parsed caches the sessions of records, by the record's name.
	parsed *otter.Cache[string, *parsedRecord]

	moves  flight.Group[*session.Session]
	probes flight.Group[struct{}]
	probed atomic.Pointer[probeResult]
}

// openedTicket is the result of opening a cookie value.
type openedTicket struct {
	Ticket
	// ring is the ring of keys that opened the value. The result is outdated once there is
	// another ring.
	ring *keys.Ring
	name string
	// rewrite is true if the browser should get a new cookie: the ticket was sealed with a
	// previous secret, or the cookie holds a whole session.
	rewrite bool
	// old is true if a previous secret sealed the value.
	old bool
	// moved is true if the cookie holds a whole session instead of a ticket.
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

// NewTickets returns a session store on records. It closes records when it is closed.
// cookies is the time in which it takes over whole sessions from cookies.
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

// Load implements session.Store.
func (t *Tickets) Load(ctx context.Context, value string) (session.Found, error) {
	ring, err := t.Keys(ctx)
	if err != nil {
		return session.Found{}, err
	}
	o, ok := t.opened.Get(value)
	if !ok || o.ring != ring {
		if o, ok = openTicketOrSession(ring, value); !ok {
			return session.Found{}, nil
		}
		if !o.old { // each use of a previous secret is to be seen
			t.opened.Put(value, o)
		}
	}
	found := session.Found{Ours: true, Stored: true, ID: o.ID, Rewrite: o.rewrite}
	if o.moved && !t.cookies.Open(t.Now()) {
		return session.Found{Ours: true, ID: o.ID}, nil
	}
	if found.Session, err = t.read(ctx, o.Ticket, o.name, false); err != nil {
		return found, err
	}
	if found.Session == nil && o.moved {
		if found.Session, err = t.moveInTime(ctx, o, value); err != nil {
			return found, err
		}
	}
	return found, nil
}

// read returns the session of a ticket, or nil if there is none.
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

// readRecord reads the session from its record. It compares the id, so that a store client
// that mixes up its replies cannot give one user the session of another (go-redis
// CVE-2025-29923).
func readRecord(text string, of Ticket, name string) (*session.Session, bool) {
	r, ok := ParseRecord(text)
	if !ok || r.Kind == session.RecordGone {
		return nil, false
	}
	plain, ok := openRecord(of.Key, name, r.Sealed)
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

// Create implements session.Store.
func (t *Tickets) Create(ctx context.Context, s *session.Session) (*session.Session, error) {
	made := *s
	made.Kept = session.Kept{Head: session.Head{Kind: session.RecordLive}}
	rand.Read(made.Kept.Key[:]) // never fails: the runtime ends the program instead
	return t.Save(ctx, &made)
}

// Save implements session.Store.
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
	if s.Kept.Kind == session.RecordClaimed && !s.IsUnconfirmed() {
		next.Kept.Kind = session.RecordMoved
	}
	name := s.ID.Hash()
	if user := UserIndexName(keys.Index[0], s.User.ID()); user != s.Kept.User {
		// Write the index entry first. If we crash in between, the index has one entry too
		// many, never one too few.
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
		return nil, session.ErrMoved
	}
	return &next, nil
}

// Reread implements session.Store.
func (t *Tickets) Reread(ctx context.Context, s *session.Session) (*session.Session, error) {
	return t.read(ctx, Ticket{s.ID, s.Kept.Key}, s.ID.Hash(), true)
}

// Cookie implements session.Store.
//
// The cookie lasts for the absolute lifetime: the idle timeout is kept in the record.
func (t *Tickets) Cookie(ctx context.Context, s *session.Session) (value string, end time.Time, err error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	if UserIndexName(keys.Index[0], s.User.ID()) != s.Kept.User {
		// The secret has changed. Update the index, so that the user's sessions are still
		// found when the previous secret is no longer configured.
		if _, err := t.Save(ctx, s); err != nil && !errors.Is(err, session.ErrMoved) {
			return "", time.Time{}, err
		}
	}
	value, err = keys.Ticket.Seal(Ticket{s.ID, s.Kept.Key}.AppendBinary(nil))
	return value, s.End(t.Lifetime, 0), err
}

// Deliver implements session.Store. A ticket does not change when its session changes.
func (t *Tickets) Deliver(c session.Change) session.Delivery {
	return session.Delivery{Save: c.Used, Cookie: c.Rewrite}
}

// TryLock implements session.Store.
func (t *Tickets) TryLock(ctx context.Context, s *session.Session, lease time.Duration) (session.Lock, bool, error) {
	return t.Records.TryLock(ctx, s.ID.Hash(), lease)
}

// Hold implements session.Store.
func (t *Tickets) Hold() (release func()) { return t.Records.Hold() }

// End implements session.Store.
func (t *Tickets) End(ctx context.Context, s *session.Session, from time.Time) error {
	_, err := t.EndByName(ctx, s.ID.Hash(), from)
	return err
}

// EndByName implements session.Store.
func (t *Tickets) EndByName(ctx context.Context, name string, from time.Time) (bool, error) {
	for range 10 { // try again if another write came in between
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
	return false, session.ErrMoved
}

func (t *Tickets) endRecord(ctx context.Context, name string, r *Record, from time.Time) (bool, error) {
	next := *r
	next.Revision++
	switch {
	case r.Kind.FromCookie():
		// The cookie from which the session was moved still opens. End it at once, and
		// remember that until the cookie would have ended.
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
		_ = t.Records.RemoveFromIndex(ctx, r.User, name) // if this fails, the next SessionsOf removes the entry
		return true, nil
	}
	return t.Records.Replace(ctx, name, r.Revision, &next)
}

// SessionsOf implements session.Store. It removes index entries whose session has ended.
func (t *Tickets) SessionsOf(ctx context.Context, userID string) ([]session.Summary, error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var sessions []session.Summary
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
				sessions = append(sessions, session.Summary{Name: name, Head: r.Head})
			}
		}
	}
	return sessions, nil
}

// Names implements session.Store.
func (t *Tickets) Names(ctx context.Context) ([]string, error) { return t.Records.Names(ctx) }

// Ledger implements session.Store.
func (t *Tickets) Ledger(spending.Ledger) spending.Ledger { return t.Records.Ledger(t.Lease) }

// LedgerUser implements session.Store. It depends on the current secret: another secret
// begins every budget anew.
func (t *Tickets) LedgerUser(ctx context.Context, userID string) (string, error) {
	keys, err := t.Keys(ctx)
	if err != nil {
		return "", err
	}
	return UserIndexName(keys.Index[0], userID), nil
}

// Ready implements session.Store. It asks the record store at most once in ProbeInterval.
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

// Probe is like Ready, without the site's keys and without a cache: keys are made at their
// first use, if no secret is configured.
func (t *Tickets) Probe(ctx context.Context) error { return t.Records.Ready(ctx) }

// Close implements session.Store.
func (t *Tickets) Close() {
	t.opened.Close()
	t.parsed.StopAllGoroutines()
	t.Records.Close()
}

// Interface guard.
var _ session.Store = (*Tickets)(nil)
