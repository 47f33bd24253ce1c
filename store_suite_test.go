package tollgate_test

import (
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/stores/redis"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// places are the kinds of places, each with a fresh one for a test.
var places = map[string]func(t *testing.T) recordstest.Place{
	"storage": func(t *testing.T) recordstest.Place {
		_, place := newBreakablePlace(t)
		return place
	},
	"redis": func(t *testing.T) recordstest.Place {
		options := redis.Options{Addresses: []string{redistest.Start(t).Address()}, ClientCache: true}
		return recordstest.Place{Open: func(*testing.T) records.Store { return redis.NewRecords(options, "tollgate:") }}
	},
}

// newBreakablePlace is a folder whose storage breaks when the test says so.
func newBreakablePlace(t *testing.T) (*recordstest.Breakable, recordstest.Place) {
	kind := recordstest.NewBreakable(t.TempDir())
	return kind, kind.Place(func(s certmagic.Storage) records.Store { return storage.NewRecords(s) })
}
