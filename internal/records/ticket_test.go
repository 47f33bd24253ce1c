package records

import (
	"bytes"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/session"
)

// FuzzTicket: a ticket has one form, and nothing else is one.
func FuzzTicket(f *testing.F) {
	f.Add(Ticket{ID: session.ID{1}, Key: session.RecordKey{2}}.AppendBinary(nil))
	f.Add([]byte{ticketVersion})
	f.Add(bytes.Repeat([]byte{0xff}, 49))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tk, ok := parseTicket(b); ok && !bytes.Equal(tk.AppendBinary(nil), b) {
			t.Fatalf("%x reads as %+v", b, tk)
		}
	})
}
