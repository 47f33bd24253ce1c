package records

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Record is what a server-side store keeps of one session: a head in plain text, and the
// session itself, sealed with a key that the store does not have. A store needs only the
// head.
type Record struct {
	session.Head
	Sealed string
}

// RecordFormat is the version of the text form below. It comes before the revision, so
// that a store can read both without the rest.
const RecordFormat = "1"

// String returns the record's text form: the format and the head's fields with a space
// between them, a line feed, and the sealed session.
func (r *Record) String() string {
	user := r.User
	if user == "" {
		user = "-"
	}
	return fmt.Sprintf("%s %d %d %d %d %d %s %s\n%s", RecordFormat, r.Revision,
		milliOrZero(r.Expires), milliOrZero(r.Created), milliOrZero(r.LastSeen), milliOrZero(r.Pending),
		user, r.Kind, r.Sealed)
}

func milliOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// ParseRecord reads the text form. The boolean is false if the text has another format or
// is damaged.
func ParseRecord(text string) (*Record, bool) {
	head, sealed, found := strings.Cut(text, "\n")
	fields := strings.Split(head, " ")
	if !found || len(fields) != 8 || fields[0] != RecordFormat {
		return nil, false
	}
	r := &Record{session.Head{User: fields[6], Kind: session.RecordKind(fields[7])}, sealed}
	if r.User == "-" {
		r.User = ""
	}
	revision, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil || !r.Kind.Known() {
		return nil, false
	}
	r.Revision = revision
	for i, t := range []*time.Time{&r.Expires, &r.Created, &r.LastSeen, &r.Pending} {
		milli, err := strconv.ParseInt(fields[2+i], 10, 64)
		if err != nil {
			return nil, false
		}
		if milli != 0 {
			*t = time.UnixMilli(milli)
		}
	}
	return r, r.String() == text // one spelling: stores compare exactly what we read
}

// RevisionOf reads only the revision of a record's text form. For text that is not in our
// format ok is false, and the text must not be overwritten.
func RevisionOf(text string) (revision uint64, ok bool) {
	rest, ok := strings.CutPrefix(text, RecordFormat+" ")
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, " ")
	revision, err := strconv.ParseUint(digits, 10, 64)
	return revision, err == nil
}

// SealRecord seals a session for the record with the given name. The name is
// authenticated, so that an attacker who can write to the store cannot give one user the
// session of another.
func SealRecord(key session.RecordKey, name string, plain []byte) (string, error) {
	aead, err := newRecordCipher(key)
	if err != nil {
		return "", err
	}
	return string(aead.Seal(nil, nil, plain, []byte(name))), nil //nolint:gosec // G407: this cipher makes the nonce, and takes none
}

// openRecord opens what SealRecord sealed. The boolean is false if the key or the name is
// another one, or if the sealed text was changed.
func openRecord(key session.RecordKey, name, sealed string) ([]byte, bool) {
	aead, err := newRecordCipher(key)
	if err != nil {
		return nil, false
	}
	plain, err := aead.Open(nil, nil, []byte(sealed), []byte(name))
	return plain, err == nil
}

// newRecordCipher returns AES-256-GCM with a new random nonce in front of each sealed
// text. The key of one session seals a few thousand times at most.
func newRecordCipher(key session.RecordKey) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
