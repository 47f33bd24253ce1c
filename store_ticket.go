package tollgate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// recordStore is a place for records that several processes may share: Caddy's
// storage, or Redis. It compares revisions and knows nothing else of a record.
//
// Names are hex digits. An error means that the place cannot say, or cannot write,
// now; a record that is not there is none.
type recordStore interface {
	// get reads a record. What it gives may be a second old: a write from elsewhere
	// shows within that. With fresh it is what stands there now.
	get(ctx context.Context, name string, fresh bool) (text string, ok bool, err error)

	// replace writes a record in the place of the one with the given revision, or, with
	// revision 0, where there is none. It is atomic, and false when something else
	// stands there.
	replace(ctx context.Context, name string, revision uint64, r *record) (bool, error)

	// remove deletes a record. One that is not there is no error.
	remove(ctx context.Context, name string) error

	// addToIndex notes that a user has this record, until it expires.
	addToIndex(ctx context.Context, user, name string, expires time.Time) error

	// removeFromIndex takes such a note back.
	removeFromIndex(ctx context.Context, user, name string) error

	// index gives the names that were noted for a user. Some may be gone.
	index(ctx context.Context, user string) ([]string, error)

	// tryLock takes the lock of a name, or says false where somebody has it. A lock
	// that is not renewed for as long as the lease is anybody's.
	tryLock(ctx context.Context, name string, lease time.Duration) (recordLock, bool, error)

	// ready reports whether records can be written now.
	ready(ctx context.Context) error

	// hold keeps the place open beyond close until it is let go.
	hold() (release func())

	// close lets go of what the place holds.
	close()
}

// recordLock is a lock that is held.
type recordLock interface {
	// renew begins the lease again. It fails when the lock was lost.
	renew(ctx context.Context) error
	// release gives the lock back, if it is still held.
	release(ctx context.Context) error
}

// errRecordMoved: in the place of the revision that was to be replaced stands
// another one by now, or none.
var errRecordMoved = errors.New("the session's record was changed by somebody else")

// maxRecord bounds a record in bytes. The largest honest one holds two tokens of a
// few kilobytes.
const maxRecord = 64 << 10

// Bounds of what a ticketStore remembers in the process.
const (
	maxParsedBytes = 128 << 20
	// probeInterval is the least time between two looks at whether records can be
	// written: anybody may ask.
	probeInterval = time.Second
)

// ticketStore keeps sessions in records, and gives the browser a ticket. A copy of
// the records gives away no token, e-mail address or id, since the tickets hold the
// keys; a ticket is worth nothing once the record is gone.
type ticketStore struct {
	storeEnv
	records recordStore
	cookies takeover
	opened  *openedValues[openedTicket]
	// parsed holds sessions as they were read from their records, by name.
	parsed *otter.Cache[string, *parsedRecord]

	moves  singleflight.Group
	probes singleflight.Group
	probed atomic.Pointer[probeResult]
}

// takeover says until when whole sessions that stood in cookies are taken over. Outside
// of that time such a cookie is no session: whoever knows the secret, which may lie in
// the storage beside the records, could seal one with any user's id in it.
type takeover struct{ until time.Time }

func (o takeover) open(now time.Time) bool { return now.Before(o.until) }

// openedTicket is what a cookie value was opened to.
type openedTicket struct {
	ticket
	name string
	// rewrite: the ticket was sealed with a previous secret, or is none.
	rewrite bool
	// moved: the value is no ticket, but a whole session.
	moved bool
}

// parsedRecord is a record's text and the session that was read from it.
type parsedRecord struct {
	text    string
	session *session
}

type probeResult struct {
	at  time.Time
	err error
}

func newTicketStore(env storeEnv, records recordStore, cookies takeover) *ticketStore {
	return &ticketStore{
		storeEnv: env,
		records:  records,
		cookies:  cookies,
		opened:   newOpenedValues[openedTicket](),
		parsed: otter.Must(&otter.Options[string, *parsedRecord]{
			MaximumWeight: maxParsedBytes,
			Weigher:       func(_ string, p *parsedRecord) uint32 { return uint32(3*len(p.text)) + 1024 },
		}),
	}
}

func (t *ticketStore) load(ctx context.Context, value string) (found, error) {
	o, ok := t.opened.get(value)
	if !ok {
		keys, err := t.keys(ctx)
		if err != nil {
			return found{}, err
		}
		if o, ok = openTicketOrSession(keys, value); !ok {
			return found{}, nil
		}
		t.opened.put(value, o)
	}
	if o.moved && !t.cookies.open(t.now()) {
		return found{ours: true}, nil
	}
	s, err := t.read(ctx, o.ticket, o.name, false)
	if err != nil {
		return found{}, err
	}
	if s == nil && o.moved {
		if s, err = t.moveInTime(ctx, o, value); err != nil {
			return found{}, err
		}
	}
	return found{session: s, ours: true, rewrite: o.rewrite}, nil
}

// openTicketOrSession opens a ticket, or the whole session that a cookie held before
// this store was configured.
func openTicketOrSession(keys *keyring, value string) (openedTicket, bool) {
	if t, which, ok := openTicket(keys, value); ok {
		return openedTicket{ticket: t, name: t.id.hash(), rewrite: which > 0}, true
	}
	if s, which, ok := openSession(keys, value); ok {
		t := movedTicket(s.id, keys.moved[which])
		return openedTicket{ticket: t, name: t.id.hash(), rewrite: true, moved: true}, true
	}
	return openedTicket{}, false
}

// read gives the session of a ticket, or nil when there is none.
func (t *ticketStore) read(ctx context.Context, of ticket, name string, fresh bool) (*session, error) {
	if t.ended.has(name, t.now()) {
		return nil, nil
	}
	text, ok, err := t.records.get(ctx, name, fresh)
	if err != nil || !ok {
		return nil, err
	}
	known, ok := t.parsed.GetIfPresent(name)
	if !ok || known.text != text || known.session.kept.key != of.key {
		s, ok := readRecord(text, of, name)
		if !ok {
			return nil, nil
		}
		known = &parsedRecord{text, s}
		t.parsed.Set(name, known)
	}
	if !t.now().Before(known.session.kept.expires) {
		return nil, nil
	}
	return known.session, nil
}

// readRecord reads the session from its record. The id in it is compared, so that no
// mix-up on the way from the store gives one user another's session
// (go-redis CVE-2025-29923).
func readRecord(text string, of ticket, name string) (*session, bool) {
	r, ok := parseRecord(text)
	if !ok || r.kind == recordGone {
		return nil, false
	}
	plain, ok := openRecord(of.key, name, r.sealed)
	if !ok {
		return nil, false
	}
	s, err := parseSession(plain)
	if err != nil || s.id != of.id {
		return nil, false
	}
	s.kept = kept{of.key, r.recordHead}
	return s, true
}

// moveInTime moves a session in, together with everybody else who carries its cookie,
// and whoever leaves meanwhile.
func (t *ticketStore) moveInTime(ctx context.Context, o openedTicket, value string) (*session, error) {
	done := t.moves.DoChan(o.name, func() (any, error) {
		return t.moveIn(context.Background(), o, value)
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

// moveIn takes over a session that stood in a cookie so far, as new as this process
// knows it, or gives nil when it has ended. Of the requests that carry the cookie
// one writes the record, and the others find it.
func (t *ticketStore) moveIn(ctx context.Context, o openedTicket, value string) (*session, error) {
	keys, err := t.keys(ctx)
	if err != nil {
		return nil, err
	}
	switch _, standing, err := t.records.get(ctx, o.name, true); {
	case err != nil:
		return nil, err
	case standing: // it has moved, or it has ended
		return t.read(ctx, o.ticket, o.name, true)
	}
	s, _, ok := openSession(keys, value)
	if !ok {
		return nil, nil
	}
	s, live := t.latest(s)
	if !live || !t.now().Before(s.created.Add(t.lifetime)) {
		return nil, nil
	}
	moved := *s
	moved.user = unconfirmedUser(s.user)
	moved.kept = kept{o.key, recordHead{kind: recordMoved}}
	switch s, err = t.save(ctx, &moved); {
	case errors.Is(err, errRecordMoved):
		return t.read(ctx, o.ticket, o.name, true)
	default:
		return s, err
	}
}

func (t *ticketStore) create(ctx context.Context, s *session) (*session, error) {
	made := *s
	made.kept = kept{recordHead: recordHead{kind: recordLive}}
	rand.Read(made.kept.key[:]) // never fails: the runtime ends the program instead
	return t.save(ctx, &made)
}

// save writes s in the place of the revision that it came from, and gives it back
// with its own. errRecordMoved says that something else stands there.
func (t *ticketStore) save(ctx context.Context, s *session) (*session, error) {
	keys, err := t.keys(ctx)
	if err != nil {
		return nil, err
	}
	next := *s
	next.kept.revision++
	next.kept.created, next.kept.lastSeen = s.created, s.lastSeen
	if end := s.created.Add(t.lifetime); next.kept.expires.IsZero() {
		next.kept.expires = end
	}
	name := s.id.hash()
	if user := userIndexName(keys.index[0], s.user.id()); user != s.kept.user {
		// Before the record: what is in a record can be found.
		if err := t.records.addToIndex(ctx, user, name, next.kept.expires); err != nil {
			return nil, fmt.Errorf("writing the session: %w", err)
		}
		next.kept.user = user
	}
	sealed, err := sealRecord(s.kept.key, name, next.appendBinary(nil))
	if err != nil {
		return nil, err
	}
	if len(sealed) > maxRecord {
		return nil, fmt.Errorf("%w (%d bytes)", errSessionTooLarge, len(sealed))
	}
	replaced, err := t.records.replace(ctx, name, s.kept.revision, &record{next.kept.recordHead, sealed})
	switch {
	case err != nil:
		return nil, fmt.Errorf("writing the session: %w", err)
	case !replaced:
		return nil, errRecordMoved
	}
	return &next, nil
}

// reread reads the session of s as it stands in the store now; nil when it has ended.
func (t *ticketStore) reread(ctx context.Context, s *session) (*session, error) {
	return t.read(ctx, ticket{s.id, s.kept.key}, s.id.hash(), true)
}

func (t *ticketStore) cookie(ctx context.Context, s *session) (string, error) {
	keys, err := t.keys(ctx)
	if err != nil {
		return "", err
	}
	if userIndexName(keys.index[0], s.user.id()) != s.kept.user {
		// The secret has changed. Whoever looks for the user's sessions with the new one
		// alone, one day, finds this one, too.
		if _, err := t.save(ctx, s); err != nil && !errors.Is(err, errRecordMoved) {
			return "", err
		}
	}
	return keys.ticket.seal(ticket{s.id, s.kept.key}.appendBinary(nil))
}

func (t *ticketStore) end(ctx context.Context, s *session, from time.Time) error {
	_, err := t.endByName(ctx, s.id.hash(), from)
	return err
}

// endByName ends the session of a record, now or at a moment to come, and reports
// whether there was one.
func (t *ticketStore) endByName(ctx context.Context, name string, from time.Time) (bool, error) {
	for range 10 { // somebody else's write in between makes it look again
		text, ok, err := t.records.get(ctx, name, true)
		if err != nil || !ok {
			return false, err
		}
		r, ok := parseRecord(text)
		if !ok {
			return false, t.records.remove(ctx, name)
		}
		if r.kind == recordGone || !t.now().Before(r.expires) {
			return false, nil
		}
		done, err := t.endRecord(ctx, name, r, from)
		if done {
			t.ended.add(name, from, r.created)
		}
		if done || err != nil {
			return done, err
		}
	}
	return false, errRecordMoved
}

func (t *ticketStore) endRecord(ctx context.Context, name string, r *record, from time.Time) (bool, error) {
	next := *r
	next.revision++
	switch {
	case r.kind == recordMoved:
		// The cookie that the session was moved from still opens: it ends at once, since
		// nothing may be forgotten before that cookie's own end.
		next = record{recordHead: recordHead{
			revision: next.revision, expires: r.created.Add(maxLifetime), created: r.created, lastSeen: r.lastSeen, kind: recordGone,
		}}
	case from.After(t.now()):
		next.expires = earlier(r.expires, from)
	default:
		if err := t.records.remove(ctx, name); err != nil {
			return false, err
		}
		t.parsed.Invalidate(name)
		_ = t.records.removeFromIndex(ctx, r.user, name) // else the next list tidies it away
		return true, nil
	}
	return t.records.replace(ctx, name, r.revision, &next)
}

// sessionSummary is what can be said of a session without its ticket.
type sessionSummary struct {
	name string
	recordHead
}

// sessionsOf lists the sessions of a user. Index entries whose session is gone are
// tidied away.
func (t *ticketStore) sessionsOf(ctx context.Context, userID string) ([]sessionSummary, error) {
	keys, err := t.keys(ctx)
	if err != nil {
		return nil, err
	}
	var sessions []sessionSummary
	for _, key := range keys.index {
		user := userIndexName(key, userID)
		names, err := t.records.index(ctx, user)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, ok, err := t.records.get(ctx, name, true)
			if err != nil {
				return nil, err
			}
			r, parsed := parseRecord(text)
			switch {
			case !ok || !parsed || r.kind == recordGone || t.ended.has(name, t.now()) || !t.now().Before(r.expires):
				if err := t.records.removeFromIndex(ctx, user, name); err != nil {
					return nil, err
				}
			case r.user == user:
				sessions = append(sessions, sessionSummary{name, r.recordHead})
			}
		}
	}
	return sessions, nil
}

// ready looks at most once in probeInterval whether records can be written.
func (t *ticketStore) ready(ctx context.Context) error {
	if last := t.probed.Load(); last != nil && within(time.Since(last.at), probeInterval) {
		return last.err
	}
	done := t.probes.DoChan("", func() (any, error) {
		ctx := context.Background() // one visitor's hang-up must not fail the others
		_, err := t.keys(ctx)
		if err == nil {
			err = t.records.ready(ctx)
		}
		t.probed.Store(&probeResult{time.Now(), err})
		return nil, err
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *ticketStore) close() {
	t.opened.close()
	t.parsed.StopAllGoroutines()
	t.records.close()
}

// Interface guard.
var _ sessionStore = (*ticketStore)(nil)
