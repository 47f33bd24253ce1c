// Package wire writes and reads the binary form in which sessions, tickets and pending
// logins are sealed: numbers as varints, texts behind their length.
//
// It knows no format of its own; each format, with its version, belongs to the type that
// it describes. Begin with Reader.
package wire

import (
	"encoding/binary"
)

func AppendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Reader takes a record apart. After the first failure every read gives
// zero, so that the parser reads straight down and asks once.
type Reader struct {
	Rest   []byte
	Failed bool
}

func (r *Reader) Bytes(n int) []byte {
	if r.Failed || n < 0 || n > len(r.Rest) {
		r.Failed = true
		return nil
	}
	taken := r.Rest[:n]
	r.Rest = r.Rest[n:]
	return taken
}

func (r *Reader) Byte() byte {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.Rest)
	if n <= 0 {
		r.Failed = true
		return 0
	}
	r.Bytes(n)
	return v
}

func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.Rest)
	if n <= 0 {
		r.Failed = true
		return 0
	}
	r.Bytes(n)
	return v
}

func (r *Reader) Text() string {
	n := r.Uvarint()
	if n > uint64(len(r.Rest)) {
		r.Failed = true
		return ""
	}
	return string(r.Bytes(int(n)))
}
