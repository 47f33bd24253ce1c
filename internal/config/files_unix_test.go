//go:build unix

package config_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/config"
)

func TestASettingFromANamedPipeIsRefused(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	resolved := make(chan error, 1)
	go func() { // ends when the setting is resolved; to read the pipe would take for ever
		r := &config.Resolver{Repl: caddy.NewReplacer()}
		r.Text("provider.client_secret", "a{file."+pipe+"}", "")
		resolved <- r.Err
	}()
	select {
	case err := <-resolved:
		if err == nil || !strings.Contains(err.Error(), "provider.client_secret: file "+pipe+" is a named pipe") {
			t.Errorf("got %v, want an error that names the pipe", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("reading the setting does not end")
	}
}
