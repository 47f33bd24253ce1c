// Package wire writes and reads the binary form in which sessions, tickets and pending
// logins are sealed: numbers as varints, texts behind their length.
//
// It knows no format of its own; each format, with its version, belongs to the type that
// it describes. Begin with Reader.
package wire

import (
	"encoding/binary"
)

// AppendText appends the length of s in bytes, as a uvarint, and then s.
func AppendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Reader reads a binary form from front to back. After the first failure every read
// returns zero, so that a parser reads straight down and calls Done once at the end.
type Reader struct {
	rest   []byte
	failed bool
}

// NewReader returns a reader of b. It neither copies nor changes b.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Done reports whether no read has failed and every byte has been read.
func (r *Reader) Done() bool { return !r.failed && len(r.rest) == 0 }

// Bytes reads n bytes. They are part of the reader's input, not a copy.
func (r *Reader) Bytes(n int) []byte {
	if r.failed || n < 0 || n > len(r.rest) {
		r.failed = true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uvarint reads an unsigned number.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.Bytes(n)
	return v
}

// Varint reads a signed number.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.Bytes(n)
	return v
}

// Text reads a text that AppendText has written.
func (r *Reader) Text() string {
	n := r.Uvarint()
	if n > uint64(len(r.rest)) {
		r.failed = true
		return ""
	}
	return string(r.Bytes(int(n)))
}
