package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const (
	// accessLifetime makes each session refresh about every three seconds.
	accessLifetime = 4 * time.Second
	// providerTimeout is how long a gateway waits for a response that was cut off.
	providerTimeout = 2 * time.Second
)

// site holds the provider, the upstream, Redis and the gateways.
type site struct {
	options
	folder   string
	secret   string
	provider *provider
	base     string // of the provider
	upstream string
	redis    *redis
	gateways []*gateway
	servers  []*http.Server
	events   events
	answers  answers
	signing  sync.Mutex // held during a sign-in, so that the newest grant belongs to it
}

func startSite(o options) (s *site, err error) {
	s = &site{options: o, secret: randomHex(32)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if s.folder, err = os.MkdirTemp("", "tollgate-soak-"); err != nil {
		return s, err
	}
	program := filepath.Join(s.folder, "caddy")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/caddy").CombinedOutput(); err != nil {
		return s, fmt.Errorf("building: %w: %s", err, out)
	}
	for number := range o.replicas {
		g := &gateway{number: number, folder: s.folder, program: program, config: s.caddyfile}
		g.url, g.admin = "http://"+porttest.Address(), porttest.Address()
		s.gateways = append(s.gateways, g)
	}
	if err := s.startOthers(); err != nil {
		return s, err
	}
	for _, g := range s.gateways {
		if err := g.start(); err != nil {
			return s, s.explain(err)
		}
	}
	return s, nil
}

// startOthers starts the servers around the gateways.
func (s *site) startOthers() (err error) {
	var users []simulator.User
	for i := range s.sessions {
		users = append(users, simulator.User{ID: int64(1000 + i), Username: fmt.Sprintf("person%d", i), BalanceCents: 100, Status: 1})
	}
	s.provider = newProvider(simulator.Options{
		Users: users, AllowLoginHint: true, AutoLogin: users[0].Username, AccessLifetime: accessLifetime,
		Clients: []simulator.Client{{ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, RedirectURIs: []string{s.gateways[0].url + "/oauth/callback"}}},
	})
	if s.base, err = s.serve(s.provider); err != nil {
		return err
	}
	s.upstream, err = s.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-User-Id"))
	}))
	if err != nil || s.store != "redis" {
		return err
	}
	s.redis = &redis{folder: s.folder, address: porttest.Address()}
	return s.redis.start()
}

func (s *site) serve(handler http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, server)
	go server.Serve(l) // ends with close
	return "http://" + l.Addr().String(), nil
}

func (s *site) caddyfile(g *gateway) string {
	store := "store storage"
	if s.store == "redis" {
		store = "store redis {\n\t\t\t\taddress " + s.redis.address + "\n\t\t\t}"
	}
	return fmt.Sprintf(`{
	admin %s
	auto_https off
	persist_config off
	grace_period 15s
	storage file_system %s
}
%s {
	bind 127.0.0.1
	tollgate {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
			timeout %s
		}
		redirect_uri %s/oauth/callback
		secret %s
		session {
			%s
		}
	}
	reverse_proxy %s
}
`, g.admin, filepath.Join(s.folder, "storage"), g.url, s.base, gatewaytest.ClientID, gatewaytest.ClientSecret, providerTimeout,
		s.gateways[0].url, s.secret, store, s.upstream)
}

// close ends everything. It keeps the folder if something went wrong.
func (s *site) close() error {
	var faults []error
	for _, g := range s.gateways {
		faults = append(faults, g.process.end(os.Interrupt, time.Minute))
	}
	if s.redis != nil {
		faults = append(faults, s.redis.kill())
	}
	for _, server := range s.servers {
		server.Close()
	}
	return errors.Join(errors.Join(faults...), os.RemoveAll(s.folder))
}

// explain adds the end of the gateways' logs to an error.
func (s *site) explain(err error) error {
	for _, g := range s.gateways {
		text, _ := os.ReadFile(filepath.Join(s.folder, fmt.Sprintf("gateway-%d.log", g.number)))
		err = fmt.Errorf("%w\ngateway %d: …%s", err, g.number, text[max(0, len(text)-2000):])
	}
	return err
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// withHint returns the authorization URL with the login_hint of a user.
func withHint(location, username string) (string, error) {
	u, err := url.Parse(location)
	if err != nil {
		return "", err
	}
	query := u.Query()
	query.Set("login_hint", username)
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// peekRefreshToken reads the form of a token request, and makes the body readable again.
func peekRefreshToken(r *http.Request) string {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return ""
	}
	return form.Get("refresh_token")
}
