package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// forged is the value of each identity header that the check claims to be. An upstream that
// receives it would take any client for any user.
const forged = "tollgate-doctor-forged"

// maxProbes limits the paths that are tried. A configuration may name any number.
const maxProbes = 40

// rehearsal is a copy of a site for a check. Nobody else can send requests to it: the site
// listens nowhere, and its upstreams listen on sockets in a folder of this user. The copy has
// less protection than the site: no client certificates, for example, and a forward_auth that
// lets every request pass.
type rehearsal struct {
	e       *examination
	site    http.Handler
	cookies string // of the session
	paths   []string
	forged  http.Header
	echo    *echo
	// asked answers the questions of forward_auth, so that requests go on to tollgate.
	asked        *http.Server
	askedAddress string
	folder       string // for the storage of the copy, and for the sockets
	clean        func()
}

// originalUpstream is the header that tells the echo which upstream it stands for.
const originalUpstream = "Tollgate-Doctor-Upstream"

// echo is the upstream of a rehearsal: it keeps the last request.
type echo struct {
	*http.Server
	address string
	mu      sync.Mutex // guards last
	last    *http.Request
}

// ServeHTTP implements http.Handler.
func (u *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = r
	w.WriteHeader(http.StatusOK)
}

// take returns the last request, and forgets it.
func (u *echo) take() *http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := u.last
	u.last = nil
	return last
}

// listen serves a handler on a socket with this name in the rehearsal's folder. address is for
// Caddy's reverse_proxy.
func (r *rehearsal) listen(name string, handler http.Handler) (s *http.Server, address string, err error) {
	path := filepath.Join(r.folder, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, "", err
	}
	s = &http.Server{Handler: handler, ReadHeaderTimeout: storeTimeout, ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(l) //nolint:errcheck // ends with Close
	return s, "unix/" + path, nil
}

func newRehearsal(e *examination) (r *rehearsal, err error) {
	r = &rehearsal{e: e, echo: &echo{}, clean: func() {}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.folder, err = os.MkdirTemp("", "tollgate-doctor-"); err != nil {
		return r, err
	}
	if r.echo.Server, r.echo.address, err = r.listen("echo", r.echo); err != nil {
		return r, err
	}
	if r.asked, r.askedAddress, err = r.listen("asked", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})); err != nil {
		return r, err
	}
	secret := keys.NewSecret()
	if r.site, err = r.provision(secret); err != nil {
		return r, err
	}
	if err := r.signIn(secret); err != nil {
		return r, err
	}
	r.forged = http.Header{}
	e.SetIdentity(r.forged)
	for name := range r.forged {
		r.forged[name] = []string{forged}
	}
	return r, nil
}

func (r *rehearsal) close() {
	r.clean()
	for _, s := range []*http.Server{r.echo.Server, r.asked} {
		if s != nil {
			_ = s.Close()
		}
	}
	_ = os.RemoveAll(r.folder)
}

// provision loads the copy of the configuration, and returns the site's server.
func (r *rehearsal) provision(secret string) (*caddyhttp.Server, error) {
	copied, err := r.copy(secret)
	if err != nil {
		return nil, err
	}
	t, err := harmless(copied)
	if err != nil {
		return nil, err
	}
	app, err := t.provision()
	if err != nil {
		return nil, err
	}
	server := app.Servers[r.e.server.name]
	r.clean = func() {
		for _, p := range patientsIn(server.Routes) {
			if h, ok := p.(caddy.CleanerUpper); ok {
				_ = h.Cleanup()
			}
		}
	}
	return server, nil
}

// copy is the configuration with a storage, a secret and upstreams of the check's own, so that
// the check leaves nothing behind and no upstream of the operator's is asked.
func (r *rehearsal) copy(secret string) ([]byte, error) {
	text, err := json.Marshal(r.e.configuration.raw)
	if err != nil {
		return nil, err
	}
	var copied document
	if err := json.Unmarshal(text, &copied); err != nil {
		return nil, err
	}
	copied["storage"] = document{"module": "file_system", "root": r.folder}
	server := serverIn(copied, r.e.server.name)
	keepOnly(copied, r.e.server.name)
	paths := map[string]bool{"/": true, "/tollgate-doctor": true}
	eachHandler(server, func(handler document) {
		switch handler["handler"] {
		case "tollgate":
			for _, pattern := range append(texts(handler["public"]), texts(handler["optional"])...) {
				addPath(paths, pattern)
			}
			r.rewriteTollgate(handler, secret)
		case "reverse_proxy":
			tellUpstream(handler)
			for _, option := range []string{"transport", "dynamic_upstreams", "health_checks", "load_balancing", "circuit_breaker"} {
				delete(handler, option)
			}
			address := r.echo.address
			if handler["handle_response"] != nil {
				address = r.askedAddress
			}
			handler["upstreams"] = []any{document{"dial": address}}
		}
	})
	eachObject(server, func(object document) {
		for _, pattern := range texts(object["path"]) {
			addPath(paths, pattern)
		}
	})
	r.paths = slices.Sorted(maps.Keys(paths))
	r.paths = r.paths[:min(len(r.paths), maxProbes)]
	return json.Marshal(copied)
}

// tellUpstream makes a reverse_proxy send the address of its upstreams to the echo.
func tellUpstream(handler document) {
	var addresses []string
	eachObject(handler["upstreams"], func(upstream document) {
		addresses = append(addresses, fmt.Sprint(upstream["dial"]))
	})
	if dynamic, ok := handler["dynamic_upstreams"].(document); ok {
		name, _ := dynamic["name"].(string)
		addresses = append(addresses, strings.TrimSpace(fmt.Sprintf("dynamic %v %s", dynamic["source"], name)))
	}
	headers := member(handler, "headers")
	set := member(member(headers, "request"), "set")
	set[originalUpstream] = []any{strings.Join(addresses, ", ")}
}

// addPath adds a path that matches a pattern.
func addPath(paths map[string]bool, pattern string) {
	if path := strings.ReplaceAll(pattern, "*", "doctor"); strings.HasPrefix(path, "/") && !strings.ContainsAny(path, "{}?[") {
		paths[path] = true
	}
}

// rewriteTollgate makes a site of the copy accept the check's own session. The site then sends
// no request to a provider or a store.
func (r *rehearsal) rewriteTollgate(handler document, secret string) {
	handler["secret"] = []any{secret}
	if s, ok := handler["session"].(document); ok {
		delete(s, "store")
	}
	delete(handler, "require")      // the check's user would not meet the rules
	delete(handler, "forward_auth") // needs a store on the server
	delete(handler, "topup_hosts")
	p, _ := handler["provider"].(document)
	if p == nil {
		return
	}
	p["active_status"] = "any"
	for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint"} {
		p[name] = "http://127.0.0.1:1/" + name // where nothing listens
	}
	p["topup_endpoint"] = "off"
	delete(p, "revocation_endpoint")
	delete(p, "balance_endpoint")
}

// signIn makes the cookies of a session.
func (r *rehearsal) signIn(secret string) error {
	parsed, err := keys.ParseSecret(secret)
	if err != nil {
		return err
	}
	ring, err := keys.NewRing([][]byte{parsed}, r.e.Client.Config.ClientID, r.e.RedirectURI)
	if err != nil {
		return err
	}
	lines, err := sessionCookies(r.e.Cookies, ring, madeUpSession(time.Now(), "made-up"), r.e.Lifetime)
	if err != nil {
		return err
	}
	var pairs []string
	for _, line := range lines {
		pair, _, _ := strings.Cut(line, ";")
		pairs = append(pairs, pair)
	}
	r.cookies = strings.Join(pairs, "; ")
	return nil
}

// send sends one request with forged headers. received is what the upstream received, or nil.
// panics is true if a handler panicked.
func (r *rehearsal) send(ctx context.Context, u *url.URL, signedIn bool) (received *http.Request, panics bool) {
	request := (&http.Request{
		Method: http.MethodGet, URL: u, RequestURI: u.RequestURI(), Host: r.e.probeHost(), Header: r.forged.Clone(), Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "127.0.0.1:1",
	}).WithContext(ctx)
	if signedIn {
		request.Header.Set("Cookie", r.cookies)
	}
	if panics := serveQuietly(r.site, r.e.Place().AsReceived(request)); panics {
		return nil, true
	}
	return r.echo.take(), false
}

// serveQuietly serves a request, and drops the response. It reports whether a handler panics,
// except to abort the response.
func serveQuietly(site http.Handler, request *http.Request) (panics bool) {
	defer func() {
		p := recover()
		panics = p != nil && p != http.ErrAbortHandler //nolint:errorlint // as in net/http
	}()
	site.ServeHTTP(&dropped{header: http.Header{}}, request)
	return false
}

// dropped is a response that nobody reads.
type dropped struct{ header http.Header }

// Header implements http.ResponseWriter.
func (d *dropped) Header() http.Header { return d.header }

// Write implements http.ResponseWriter.
func (d *dropped) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (d *dropped) WriteHeader(int) {}
