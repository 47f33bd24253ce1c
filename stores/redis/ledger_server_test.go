package redis_test

import (
	"os"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/stores/redis"
)

// server is a real Redis in a test.
type server struct {
	*redistest.Server
	t testing.TB
}

func startServer(t testing.TB, flags ...string) *server {
	t.Helper()
	return &server{redistest.Start(t, flags...), t}
}

// gateway returns the ledger of another process: it has a connection of its own, and has
// seen nothing.
func (s *server) gateway(lease time.Duration, now func() time.Time) *redis.Ledger {
	client := redis.NewClient(redis.Options{Addresses: []string{s.Address()}, Timeout: 30 * time.Second}, 0)
	s.t.Cleanup(client.Release)
	return redis.NewLedger(client, "tollgate:", lease, now)
}

// copyData copies what the server has on its disk: all that it was told.
func (s *server) copyData() (folder string) {
	s.t.Helper()
	folder = s.t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(s.Folder)); err != nil {
		s.t.Fatal(err)
	}
	return folder
}

// restartWith restarts the server with other data. Without a folder it has none.
func (s *server) restartWith(folder string) {
	s.t.Helper()
	s.Kill()
	err := os.RemoveAll(s.Folder)
	if err == nil && folder == "" {
		err = os.Mkdir(s.Folder, 0o700)
	} else if err == nil {
		err = os.CopyFS(s.Folder, os.DirFS(folder))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.Restart()
}
