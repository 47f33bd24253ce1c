package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const (
	cookieName = "tollgate"
)

// site holds the sites that are measured, and the servers that they need.
type site struct {
	folder   string
	provider *simulator.Provider
	server   *http.Server // of the provider
	upstream *child
	caddy    *child
	// The addresses of Caddy's sites.
	plain, gated, gatedNone string
}

// startSite starts provider, upstream and Caddy.
func startSite(o options) (*site, error) {
	folder, err := os.MkdirTemp("", "tollgate-bench-")
	if err != nil {
		return nil, err
	}
	s := &site{folder: folder}
	if err := s.start(o); err != nil {
		err = s.explain(err)
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *site) start(o options) error {
	s.plain, s.gated, s.gatedNone = porttest.Address(), porttest.Address(), porttest.Address()
	providerURL, err := s.startProvider(o)
	if err != nil {
		return err
	}
	if s.upstream, err = startChild(roleUpstream, filepath.Join(s.folder, "upstream.log")); err != nil {
		return err
	}
	upstream, err := s.upstream.answer()
	if err != nil {
		return err
	}
	config := filepath.Join(s.folder, "Caddyfile")
	if err := os.WriteFile(config, []byte(s.caddyfile(o, providerURL, upstream)), 0o600); err != nil {
		return err
	}
	s.caddy, err = startChild(roleCaddy, filepath.Join(s.folder, "caddy.log"), configVariable+"="+config,
		"XDG_CONFIG_HOME="+s.folder, "XDG_DATA_HOME="+s.folder)
	if err != nil {
		return err
	}
	return s.waitForCaddy()
}

func (s *site) startProvider(o options) (origin string, err error) {
	s.provider = simulator.New(simulator.Options{
		Users: benchUsers(o.sessions),
		Clients: []simulator.Client{{
			ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, Name: "Benchmark", RedirectURIs: []string{s.redirectURI()},
		}},
		AccessTokenSize: o.tokenSize,
		AllowLoginHint:  true,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.server = &http.Server{Handler: s.provider}
	go s.server.Serve(l) // ends when the server is closed
	return "http://" + l.Addr().String(), nil
}

func (s *site) redirectURI() string { return "http://" + s.gated + "/oauth/callback" }

// caddyfile returns a configuration with the plain site, the site behind tollgate, and the
// same without any headers. The two sites with tollgate have the same redirect URI and
// secret, so that each accepts the cookies of the other. No site matches a host.
func (s *site) caddyfile(o options, providerURL, upstream string) string {
	proxy := fmt.Sprintf(`reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host 1024
		}
	}`, upstream)
	gate := func(identity string) string {
		return fmt.Sprintf(`tollgate {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
		}
		redirect_uri %s
		secret 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
		identity %s
		balance {
			max_age %v
		}
	}
	`, providerURL, gatewaytest.ClientID, gatewaytest.ClientSecret, s.redirectURI(), identity, o.maxAge)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{
	admin off
	auto_https off
	persist_config off
	storage file_system %s
	log {
		level WARN
	}
}
`, s.folder)
	for _, site := range []struct{ address, directives string }{
		{s.plain, proxy},
		{s.gated, gate("default") + proxy},
		{s.gatedNone, gate("none") + proxy},
	} {
		host, port, _ := net.SplitHostPort(site.address)
		fmt.Fprintf(&b, "http://:%s {\n\tbind %s\n\t%s\n}\n", port, host, site.directives)
	}
	return b.String()
}

// waitForCaddy returns as soon as every site accepts connections.
func (s *site) waitForCaddy() error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s.caddy.hasEnded() {
			return errors.New("caddy did not start")
		}
		if s.listens() {
			return nil
		}
	}
	return errors.New("caddy does not listen")
}

func (s *site) listens() bool {
	for _, address := range []string{s.plain, s.gated, s.gatedNone} {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
	}
	return true
}

// checkProvider checks the requests at the provider: one exchange for each session, and no
// refresh token used twice.
func (s *site) checkProvider(o options) error {
	if n := s.provider.Count(simulator.Exchange); n != o.sessions {
		return fmt.Errorf("%d code exchanges for %d sessions", n, o.sessions)
	}
	if n := s.provider.DoubleSpends(); n > 0 {
		return fmt.Errorf("%d refresh tokens were spent twice", n)
	}
	return nil
}

// maxLogTail is the maximum length of the log text in an error.
const maxLogTail = 4 << 10

// explain adds the last log lines of the children to an error.
func (s *site) explain(err error) error {
	for _, c := range []*child{s.upstream, s.caddy} {
		if c == nil {
			continue
		}
		log, readErr := os.ReadFile(c.logPath)
		if readErr != nil || len(log) == 0 {
			continue
		}
		err = fmt.Errorf("%w\nlast log lines of %s:\n%s", err, c.name, log[max(0, len(log)-maxLogTail):])
	}
	return err
}

func (s *site) close() {
	for _, c := range []*child{s.caddy, s.upstream} {
		if c != nil {
			c.stop()
		}
	}
	if s.server != nil {
		s.server.Close()
	}
	os.RemoveAll(s.folder)
}
