package tollgate

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/fnv"
	"time"
)

// sessionID names one session for its whole life: 128 random bits.
type sessionID [16]byte

// hash is what logs, operators and server-side stores call a session: it finds the
// session's lines and its record, and opens nothing.
func (id sessionID) hash() string {
	sum := sha256.Sum256(append([]byte("tollgate session hash\x00"), id[:]...))
	return hex.EncodeToString(sum[:16])
}

// session is one signed-in browser: who it is, and the tokens that speak for the
// user. A session is never changed once it is shared; a renewal makes a new value
// with the next generation.
type session struct {
	id         sessionID
	generation uint64
	// created never moves: the absolute lifetime counts from it.
	created time.Time
	// lastSeen moves at most once in slideInterval, and only with an idle timeout.
	lastSeen time.Time
	tokens   tokens
	// user is what the provider said when this value was written. Newer
	// information, where this process has it, is in userInfos.
	user userInfo
	// kept is where and how a server-side store keeps this session.
	kept kept
}

// kept is the record of a server-side store that a session was read from, or was
// written to.
type kept struct {
	key recordKey
	recordHead
}

// newSession starts a session. An id is only ever minted here, after a
// successful exchange; one that a browser brings along is never adopted.
func newSession(now time.Time, t tokens, u userInfo) *session {
	s := &session{generation: 1, created: now, lastSeen: now, tokens: t, user: u}
	rand.Read(s.id[:]) // never fails: the runtime ends the program instead
	return s
}

// renewed is s with other tokens.
func (s *session) renewed(t tokens) *session {
	next := *s
	next.tokens = t
	next.generation++
	next.kept.pending = time.Time{}
	return &next
}

// maxLifetime is the longest absolute lifetime of a session: the provider's
// refresh tokens live for 30 days, and no session outlives its refresh token.
const maxLifetime = 30 * 24 * time.Hour

// slideInterval is how far lastSeen may lag behind, so that an idle timeout does
// not cost a new cookie with every answer.
const slideInterval = time.Minute

// slideDue reports whether lastSeen should be written anew.
func (s *session) slideDue(now time.Time, idle time.Duration) bool {
	return idle > 0 && now.Sub(s.lastSeen) >= min(slideInterval, idle/4)
}

// seen is s with a later lastSeen. The tokens, and so the generation, stay.
func (s *session) seen(now time.Time) *session {
	next := *s
	next.lastSeen = now
	return &next
}

// keptAs is s in the place of another record, whose uses it takes over.
func (s *session) keptAs(k kept) *session {
	next := *s
	next.kept = k
	if k.lastSeen.After(next.lastSeen) {
		next.lastSeen = k.lastSeen
	}
	return &next
}

// end is the moment from which s is no session any more.
func (s *session) end(lifetime, idle time.Duration) time.Time {
	end := s.created.Add(lifetime)
	if idle > 0 {
		end = earlier(end, s.lastSeen.Add(idle))
	}
	return end
}

// refreshAt is the moment from which a refresh is due: `before` ahead of the
// token's end, but never more than a fifth of its life, so that short tokens are
// not refreshed all the time. Up to a tenth of that is taken off again, by
// session, so that sessions which began together do not refresh together.
func (s *session) refreshAt(before time.Duration) time.Time {
	window := min(before, s.tokens.expires.Sub(s.tokens.issued)/5)
	return s.tokens.expires.Add(-window + jitter(window/10, s.id))
}

// jitter is a duration from 0 to limit that is always the same for one session.
func jitter(limit time.Duration, id sessionID) time.Duration {
	if limit <= 0 {
		return 0
	}
	h := fnv.New32a()
	h.Write(id[:])
	return time.Duration(int64(h.Sum32()) % int64(limit+1))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// errSessionTooLarge: the session, with its tokens, does not fit where the store
// keeps it.
var errSessionTooLarge = errors.New("the session is too large for its store: with `session { store storage }` tokens may have any ordinary size")

// sessionStore keeps sessions between requests. No store knows the handler, and
// the handler knows no store by name.
//
// Yes, no and broken are never mixed up: load finds a session; or none, with a nil
// error (the value is missing, foreign, outdated or made up); or it fails, because
// the store cannot say, and a failure never signs anybody out.
type sessionStore interface {
	// load finds the session that a cookie value stands for.
	load(ctx context.Context, value string) (found, error)

	// create keeps a new session, and gives it back as it was kept.
	create(ctx context.Context, s *session) (*session, error)

	// cookie gives the cookie value that stands for a session that is kept.
	cookie(ctx context.Context, s *session) (value string, err error)

	// end makes s no session any more from the given moment on, as far as the store
	// can.
	end(ctx context.Context, s *session, from time.Time) error

	// ready reports whether the store could serve a request now, a sign-in included.
	ready(ctx context.Context) error

	// close lets go of what the store holds. Requests may still be under way with it.
	close()
}

// found is what a store found.
type found struct {
	session *session // nil: there is none
	// ours: this site has sealed the value, whether or not its session still lives.
	ours bool
	// rewrite: the browser should be given its cookie anew, since the secret or the
	// store has changed.
	rewrite bool
}

// recordVersion names the binary form below. A record of any other version is no
// session; it is never read by guess.
const recordVersion = 1

// appendBinary appends the compact binary form of s: version, id, numbers as
// uvarints, times in Unix milliseconds, texts behind their length.
func (s *session) appendBinary(b []byte) []byte {
	b = append(b, recordVersion)
	b = append(b, s.id[:]...)
	b = binary.AppendUvarint(b, s.generation)
	for _, t := range []time.Time{s.created, s.lastSeen, s.tokens.issued, s.tokens.expires, s.user.readAt} {
		b = binary.AppendVarint(b, t.UnixMilli())
	}
	for _, text := range []string{s.tokens.access, s.tokens.refresh, s.tokens.scope} {
		b = appendText(b, text)
	}
	for _, value := range s.user.fields {
		b = appendText(b, string(value))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

var errRecord = errors.New("not a session record of this version")

// parseSession reads the binary form. Whatever is not exactly one record, to its
// last byte, is an error.
func parseSession(b []byte) (*session, error) {
	r := recordReader{rest: b}
	if r.byte() != recordVersion {
		return nil, errRecord
	}
	s := &session{}
	copy(s.id[:], r.bytes(len(s.id)))
	s.generation = r.uvarint()
	var readAt time.Time
	for _, t := range []*time.Time{&s.created, &s.lastSeen, &s.tokens.issued, &s.tokens.expires, &readAt} {
		*t = time.UnixMilli(r.varint())
	}
	for _, text := range []*string{&s.tokens.access, &s.tokens.refresh, &s.tokens.scope} {
		*text = r.text()
	}
	var fields [fieldCount]scalar
	for i := range fields {
		fields[i] = scalar(r.text())
	}
	s.user = newUserInfo(fields, readAt)
	if r.failed || len(r.rest) > 0 {
		return nil, errRecord
	}
	return s, nil
}

// openSession opens a cookie value that is a whole session, and says which secret
// had sealed it.
func openSession(keys *keyring, value string) (s *session, which int, ok bool) {
	plain, which, ok := keys.session.open(value)
	if !ok {
		return nil, 0, false
	}
	s, err := parseSession(plain)
	return s, which, err == nil // of another version: no session
}

// recordReader takes a record apart. After the first failure every read gives
// zero, so that the parser reads straight down and asks once.
type recordReader struct {
	rest   []byte
	failed bool
}

func (r *recordReader) bytes(n int) []byte {
	if r.failed || n < 0 || n > len(r.rest) {
		r.failed = true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *recordReader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.bytes(n)
	return v
}

func (r *recordReader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.bytes(n)
	return v
}

func (r *recordReader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.failed = true
		return ""
	}
	return string(r.bytes(int(n)))
}
