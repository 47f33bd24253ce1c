package tollgate

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// recordKey seals one session's record. It is made at random for each session, and
// only the ticket holds it.
type recordKey [32]byte

// record is what a server-side store keeps of one session: a head in plain text,
// which is all that a store has to know, and the session itself, sealed with a key
// that the store does not have.
type record struct {
	recordHead
	sealed string
}

type recordHead struct {
	// revision counts what was written in this place; a write names the revision
	// that it replaces.
	revision uint64
	// expires is when the record may be forgotten.
	expires           time.Time
	created, lastSeen time.Time
	// pending is when a refresh token was sent whose answer is not written down yet.
	pending time.Time
	// user is the user's name in the index.
	user string
	kind recordKind
}

// recordKind tells records apart that end in different ways.
type recordKind string

const (
	recordLive recordKind = "live"
	// recordMoved: the session stood in a cookie before. That cookie still opens, so
	// the end of the session has to be remembered.
	recordMoved recordKind = "moved"
	// recordGone remembers the end of a session that was moved.
	recordGone recordKind = "gone"
)

// recordFormat names the text form below. It stands before the revision, where a
// store finds it without reading the rest.
const recordFormat = "1"

// String is the record's text form: the format, the head's fields with a space
// between them, a line feed, and the sealed session.
func (r *record) String() string {
	user := r.user
	if user == "" {
		user = "-"
	}
	return fmt.Sprintf("%s %d %d %d %d %d %s %s\n%s", recordFormat, r.revision,
		milliOrZero(r.expires), milliOrZero(r.created), milliOrZero(r.lastSeen), milliOrZero(r.pending),
		user, r.kind, r.sealed)
}

func milliOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// parseRecord reads the text form; false for anything else, of another format, or
// damaged.
func parseRecord(text string) (*record, bool) {
	head, sealed, found := strings.Cut(text, "\n")
	fields := strings.Split(head, " ")
	if !found || len(fields) != 8 || fields[0] != recordFormat {
		return nil, false
	}
	r := &record{recordHead{user: fields[6], kind: recordKind(fields[7])}, sealed}
	if r.user == "-" {
		r.user = ""
	}
	revision, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil || (r.kind != recordLive && r.kind != recordMoved && r.kind != recordGone) {
		return nil, false
	}
	r.revision = revision
	for i, t := range []*time.Time{&r.expires, &r.created, &r.lastSeen, &r.pending} {
		milli, err := strconv.ParseInt(fields[2+i], 10, 64)
		if err != nil {
			return nil, false
		}
		if milli != 0 {
			*t = time.UnixMilli(milli)
		}
	}
	return r, r.String() == text // one spelling: what stores compare is what we read
}

// revisionOf reads no more than the revision of a record's text form. What is not
// of this format has none, and is replaced by nobody.
func revisionOf(text string) (uint64, bool) {
	rest, ok := strings.CutPrefix(text, recordFormat+" ")
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, " ")
	revision, err := strconv.ParseUint(digits, 10, 64)
	return revision, err == nil
}

// sealRecord seals a session for the record of the given name, and openRecord opens
// it again. Under another name it does not open: whoever can write to the store
// cannot give one user another's session.
func sealRecord(key recordKey, name string, plain []byte) (string, error) {
	aead, err := newRecordCipher(key)
	if err != nil {
		return "", err
	}
	return string(aead.Seal(nil, nil, plain, []byte(name))), nil //nolint:gosec // G407: this cipher makes the nonce, and takes none
}

func openRecord(key recordKey, name, sealed string) ([]byte, bool) {
	aead, err := newRecordCipher(key)
	if err != nil {
		return nil, false
	}
	plain, err := aead.Open(nil, nil, []byte(sealed), []byte(name))
	return plain, err == nil
}

// newRecordCipher gives AES-256-GCM, which puts a fresh random nonce in front of
// what it seals. One session's key seals a few thousand times at most.
func newRecordCipher(key recordKey) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
