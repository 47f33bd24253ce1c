package recordstest

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// BenchmarkLoad is what finding a session costs that was read a moment ago.
func BenchmarkLoad(b *testing.B, open records.Store) {
	source, err := keys.NewSource([][]byte{[]byte(strings.Repeat("s", 32))}, nil, "client", "https://app.example.com/cb", nil)
	if err != nil {
		b.Fatal(err)
	}
	store := records.NewTickets(session.Env{Keys: source.Ring, Ended: session.NewEndedNames(time.Now), Lifetime: time.Hour, Now: time.Now}, open, session.Takeover{})
	defer store.Close()
	s, err := store.Create(b.Context(), FreshSession("12345"))
	if err != nil {
		b.Fatal(err)
	}
	value, _, err := store.Cookie(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if found, err := store.Load(b.Context(), value); err != nil || found.Session == nil {
			b.Fatal(found, err)
		}
	}
}
