package gatewaytest

import (
	"cmp"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// Running is a Caddy that really runs: with its own listeners, logs and reloads.
// There is one in a process at a time.
type Running struct {
	*Site
	Caddyfile string
	Logs      string // the folder
	Storage   string // Caddy's, a folder
}

// RunOptions are what a test wants otherwise than usual.
type RunOptions struct {
	Access time.Duration // the life of access tokens; default 2h
	Admin  string        // the address of the admin API; default off
	// inTollgate are more lines for that block.
	InTollgate string
}

// Run starts a Caddy, which ends with the test.
func Run(t *testing.T, options RunOptions) *Running {
	t.Helper()
	r := Prepare(t, options)
	r.Start()
	return r
}

// Prepare writes the Caddyfile, which a test may change before the start.
func Prepare(t *testing.T, options RunOptions) *Running {
	t.Helper()
	address := porttest.Address()
	s := &Site{T: t, URL: "http://" + address, Upstream: NewUpstream(t, nil)}
	s.Provider = simulator.New(simulator.Options{
		AutoLogin: "user123", AllowLoginHint: true, AccessLifetime: cmp.Or(options.Access, 2*time.Hour),
		Clients: []simulator.Client{{ID: ClientID, Secret: ClientSecret, RedirectURIs: []string{s.URL + "/oauth/callback"}}},
	})
	provider := httptest.NewServer(s.Provider)
	t.Cleanup(provider.Close)
	s.ProviderURL = provider.URL

	r := &Running{Site: s, Logs: t.TempDir(), Storage: t.TempDir()}
	r.Caddyfile = fmt.Sprintf(`{
	admin %s
	auto_https off
	persist_config off
	storage file_system %s
	grace_period 5s
	log default {
		output file %s
		level DEBUG
	}
}
http://%s {
	bind 127.0.0.1
	log {
		output file %s
	}
	tollgate {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
		}
		redirect_uri http://%s/oauth/callback
		secret %s
		%s
	}
	reverse_proxy %s
}
`, cmp.Or(options.Admin, "off"), r.Storage, filepath.Join(r.Logs, "default.log"), address, filepath.Join(r.Logs, "access.log"),
		s.ProviderURL, ClientID, ClientSecret, address, Secret, options.InTollgate, s.Upstream.URL)
	return r
}

// Start loads the Caddyfile.
func (r *Running) Start() {
	r.T.Helper()
	r.Reload()
	r.T.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			r.T.Error(err)
		}
	})
}

// Reload loads the Caddyfile again.
func (r *Running) Reload() {
	r.T.Helper()
	config, err := Adapt(r.Caddyfile)
	if err != nil {
		r.T.Fatal(err)
	}
	Provisioning.Lock()
	defer Provisioning.Unlock()
	if err := caddy.Load(config, true); err != nil {
		r.T.Fatal(err)
	}
}
