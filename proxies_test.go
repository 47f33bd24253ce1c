package tollgate_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/simulator"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// proxyAddresses are the addresses that a proxy's configuration is rendered with, and
// the file that its logs go to.
type proxyAddresses struct {
	listen, gateway, application string
	log                          string
}

// proxiedSite is a site whose application stands behind another proxy, which is
// configured by an example and asks the gateway.
type proxiedSite struct {
	*gatewaytest.Site
	storage *recordstest.Breakable
	log     string // the file with the proxy's logs
	// nextEvent has the application send the next event of an event stream.
	nextEvent chan<- struct{}
	// keepsDoubleHyphens: the proxy cannot drop names such as X-User--Id.
	keepsDoubleHyphens bool
}

// newProxiedSite starts the gateway of an example, and then the proxy.
func newProxiedSite(t *testing.T, example string, start func(*testing.T, proxyAddresses)) *proxiedSite {
	t.Helper()
	listen := porttest.Address()
	nextEvent := make(chan struct{})
	s := gatewaytest.New(t, gatewaytest.Options{Front: "http://" + listen, Handler: echoOrUpgrade(nextEvent)})
	manualtest.SetEnv(t)
	t.Setenv("OAUTH_CLIENT_ID", gatewaytest.ClientID)
	t.Setenv("OAUTH_CLIENT_SECRET", gatewaytest.ClientSecret)
	t.Setenv("OAUTH_REDIRECT_URI", s.URL+"/oauth/callback")
	s.Caddyfile = fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %s\n}\n", t.TempDir()) +
		render(t, filepath.Join("examples", example, "Caddyfile"), ":9000 {", "http:// {",
			"tollgate {\n", "tollgate {\n public /open/*\n", "provider aihubmix {", "provider aihubmix {\n base_url "+s.ProviderURL)
	// These tests are about proxies, and hold on a busy machine, too.
	s.Clock.AuthTimeout = time.Minute
	s.Load()
	records := s.Handlers[0].Internals().Store.(*records.Tickets).Records.(*storage.Records)
	kind := &recordstest.Breakable{Storage: records.Storage}
	records.Storage = kind
	log := filepath.Join(t.TempDir(), "proxy.log")
	start(t, proxyAddresses{listen, strings.TrimPrefix(s.GatewayURL, "http://"), strings.TrimPrefix(s.Upstream.URL, "http://"), log})
	return &proxiedSite{Site: s, storage: kind, log: log, nextEvent: nextEvent}
}

// render reads a file of an example and replaces addresses; each has to be there.
func render(t *testing.T, file string, oldnew ...string) string {
	t.Helper()
	text := manualtest.ReadFile(t, file)
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("%s holds no %q", file, oldnew[i])
		}
		text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
	}
	return text
}

// echoOrUpgrade answers with what it received. On a WebSocket it answers each line with
// the line and the user, and it accepts h2c. An event stream gets an event for each value
// of nextEvent.
func echoOrUpgrade(nextEvent <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		upgrade := r.Header.Values("Upgrade")
		switch {
		case slices.ContainsFunc(upgrade, func(line string) bool { return strings.Contains(strings.ToLower(line), "h2c") }):
			speakH2C(w, r)
		case len(upgrade) > 0:
			speakLines(w, r)
		case r.Header.Get("Accept") == "text/event-stream":
			speakEvents(w, r, nextEvent)
		default:
			json.NewEncoder(w).Encode(gatewaytest.Received{Method: r.Method, URI: r.RequestURI, Header: r.Header})
		}
	}
}

func speakEvents(w http.ResponseWriter, r *http.Request, nextEvent <-chan struct{}) {
	w.Header().Set("Content-Type", "text/event-stream")
	http.NewResponseController(w).Flush()
	for {
		select {
		case <-nextEvent:
			io.WriteString(w, "data: "+r.Header.Get("X-User-Id")+"\n\n")
			http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// speakLines stands for a WebSocket.
func speakLines(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
	rw.Flush()
	line, _ := rw.ReadString('\n')
	rw.WriteString(r.Header.Get("X-User-Id") + " says " + line)
	rw.Flush()
}

// findProgram finds a program that is installed. Debian keeps proxies where ordinary
// users' PATH does not look.
func findProgram(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if path := "/usr/sbin/" + name; isExecutable(path) {
		return path
	}
	t.Fatalf("%s is not installed: run .ci/install-packages, which says what is missing", name)
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// startProxy runs a proxy in the foreground until the test ends, and waits until it
// accepts connections.
func startProxy(t *testing.T, listen, name string, args ...string) {
	t.Helper()
	startLoggingProxy(t, listen, filepath.Join(t.TempDir(), "output"), name, args...)
}

// startLoggingProxy is startProxy with a file that gets what the proxy prints.
func startLoggingProxy(t *testing.T, listen, log, name string, args ...string) {
	t.Helper()
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	command := exec.Command(findProgram(t, name), args...)
	command.Stdout, command.Stderr = output, output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		command.Process.Kill()
		<-ended
	})
	for end := time.Now().Add(gatewaytest.Patience); time.Now().Before(end); {
		if conn, err := net.Dial("tcp", listen); err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s has ended: %v\n%s", name, err, manualtest.ReadFile(t, log))
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not listen\n%s", name, manualtest.ReadFile(t, log))
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startNginx runs nginx with the example's site, inside the frame that a package's
// nginx.conf is, but for places that any user may write to.
func startNginx(t *testing.T, a proxyAddresses) {
	runNginx(t, a, render(t, "examples/forward-auth-nginx/tollgate.conf",
		"listen 80;", "listen "+a.listen+";", "127.0.0.1:9000", a.gateway, "127.0.0.1:3000", a.application))
}

// runNginx runs nginx with a site, or with several.
func runNginx(t *testing.T, a proxyAddresses, site string) {
	folder := t.TempDir()
	writeFile(t, filepath.Join(folder, "site.conf"), site)
	conf := "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\n" +
		"access_log " + a.log + ";\nerror_log " + a.log + ";\ninclude site.conf;\n"
	for _, place := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += place + "_temp_path " + place + ";\n"
	}
	writeFile(t, filepath.Join(folder, "nginx.conf"), conf+"}\n")
	startLoggingProxy(t, a.listen, a.log, "nginx", "-p", folder, "-e", "stderr", "-c", "nginx.conf")
}

func TestExampleNginxWorks(t *testing.T) {
	s := newProxiedSite(t, "forward-auth-nginx", startNginx)
	s.keepsDoubleHyphens = true
	s.keepsItsPromises(t)
}

// startCaddy runs another Caddy with the example's site.
func startCaddy(t *testing.T, a proxyAddresses) { frontCaddy(t, a, "") }

// frontCaddy runs another Caddy with the example's site and further global options. It asks
// over a connection of its own each time: Caddy's reverse_proxy leaves a dial that it did
// not need after all to read the request's variables, while the next reverse_proxy of the
// same request, the one that follows forward_auth, writes to them.
func frontCaddy(t *testing.T, a proxyAddresses, options string) {
	server, handlers, err := gatewaytest.Provision(render(t, "examples/forward-auth-caddy/proxy.Caddyfile",
		"{\n\t# The address of a callback", "{\nadmin off\nauto_https off\n"+options+"\n# The address of a callback",
		"log {\n\t\tformat", "log {\noutput file "+a.log+"\nformat",
		"app.example.com {", "http:// {", "uri /oauth/auth\n", "uri /oauth/auth\ntransport http {\nkeepalive off\n}\n",
		"127.0.0.1:9000", a.gateway, "127.0.0.1:3000", a.application))
	if err != nil || len(handlers) != 0 {
		t.Fatal(handlers, err)
	}
	listener, err := net.Listen("tcp", a.listen)
	if err != nil {
		t.Fatal(err)
	}
	front := &httptest.Server{Listener: listener, Config: &http.Server{Handler: server}}
	front.Start()
	t.Cleanup(front.Close)
}

func TestExampleCaddyWorks(t *testing.T) {
	newProxiedSite(t, "forward-auth-caddy", startCaddy).keepsItsPromises(t)
}

// writeHAProxy writes the example's configuration to a folder and gives the name of the
// main file.
func writeHAProxy(t *testing.T, a proxyAddresses) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	writeFile(t, config, render(t, "examples/forward-auth-haproxy/haproxy.cfg",
		"/etc/haproxy/tollgate.lua", "examples/forward-auth-haproxy/tollgate.lua", "log /dev/log local0", "log stdout format raw local0",
		"bind :80", "bind "+a.listen, "127.0.0.1:9000", a.gateway, "127.0.0.1:3000", a.application))
	return config
}

// startHAProxy runs HAProxy with the example's configuration.
func startHAProxy(t *testing.T, a proxyAddresses) {
	startLoggingProxy(t, a.listen, a.log, "haproxy", "-db", "-f", writeHAProxy(t, a))
}

func TestExampleHAProxyWorks(t *testing.T) {
	newProxiedSite(t, "forward-auth-haproxy", startHAProxy).keepsItsPromises(t)
}

func TestExampleHAProxyStartsWithoutWarnings(t *testing.T) {
	config := writeHAProxy(t, proxyAddresses{"127.0.0.1:8080", "127.0.0.1:9000", "127.0.0.1:3000", ""})
	output, err := exec.Command(findProgram(t, "haproxy"), "-c", "-f", config).CombinedOutput()
	if err != nil || strings.Contains(string(output), "WARNING") || strings.Contains(string(output), "ALERT") {
		t.Errorf("haproxy -c: %v\n%s", err, output)
	}
}

// keepsItsPromises is what every proxy's example has to do. One site serves all of it.
func (s *proxiedSite) keepsItsPromises(t *testing.T) {
	promises := []struct {
		promise string
		test    func(*proxiedSite, *testing.T)
	}{
		{"a person signs in and comes back to the page", (*proxiedSite).testSignIn},
		{"the identity cannot be forged", (*proxiedSite).testForgery},
		{"whatever is no person going to a page gets 401", (*proxiedSite).testScripts},
		{"a body passes", (*proxiedSite).testBody},
		{"a WebSocket passes", (*proxiedSite).testWebSocket},
		{"refreshes survive that no cookie is handed on", (*proxiedSite).testRefresh},
		{"thirty assets at once are one refresh", (*proxiedSite).testAssets},
		{"signing out is final", (*proxiedSite).testLogout},
		{"a refused user is refused", (*proxiedSite).testRefused},
		{"a store that fails is no sign-in", (*proxiedSite).testStoreFault},
		{"a WebSocket alone changes the protocol", (*proxiedSite).testProtocols},
		{"CONNECT and TRACE are refused", (*proxiedSite).testTunnels},
		{"a target without a path is refused", (*proxiedSite).testTargets},
		{"look-alike headers are dropped", (*proxiedSite).testLookAlikes},
		{"the application gets no cookie of tollgate", (*proxiedSite).testCookies},
		{"an event stream passes as it comes", (*proxiedSite).testEventStream},
		{"no log holds code and state", (*proxiedSite).testLogs},
	}
	for _, p := range promises {
		t.Run(p.promise, func(t *testing.T) {
			s.T = t
			p.test(s, t)
		})
	}
}

func (s *proxiedSite) testSignIn(t *testing.T) {
	const page = "/page?a=1&b=2&c=%2Fx%26y&d=%C3%A9"
	b := s.NewBrowser()
	if a := b.Visit(page); a.StatusCode != http.StatusFound || !strings.HasPrefix(a.Location(), s.ProviderURL+"/") {
		t.Fatalf("without a session: %d, %q: %s", a.StatusCode, a.Location(), a.Text)
	}
	seen := b.Follow(page).Seen(t)
	if seen.URI != page {
		t.Errorf("the sign-in leads back to %q", seen.URI)
	}
	for _, header := range identity.Presets["default"] {
		if lines := seen.Header.Values(header.Name); len(lines) != 1 || lines[0] == "" {
			t.Errorf("%s is %q", header.Name, lines)
		}
	}
	if seen.Header.Get("X-User-Id") != gatewaytest.UserID || seen.Header.Get("X-User-Name") != "user123" || seen.Header.Get("X-User-Balance") != "750.00" {
		t.Errorf("the identity is %q", seen.Header)
	}
	if a := b.Get("/oauth/userinfo"); a.JSON(t)["username"] != "user123" {
		t.Errorf("userinfo: %d %s", a.StatusCode, a.Text)
	}
	for cookies, want := range map[string]string{"": "", "x=1; ": "x=1", "nottollgate=1; ": "nottollgate=1"} {
		got := s.NewBrowser().Get("/", "Cookie: "+cookies+"tollgate="+b.Cookies()["tollgate"]+"; z=2").Seen(t).Header.Get("Cookie")
		if strings.Contains(got, b.Cookies()["tollgate"]) || !strings.Contains(got, want) || !strings.HasSuffix(got, "z=2") {
			t.Errorf("the application sees the cookies %q", got)
		}
	}
	// A cookie under the ticket's name of another scheme, as an application could set it.
	got := s.NewBrowser().Get("/", "Cookie: tollgate="+b.Cookies()["tollgate"]+"; z=2; __Host-tollgate=1").Seen(t).Header.Get("Cookie")
	if strings.Contains(got, b.Cookies()["tollgate"]) || !strings.Contains(got, "z=2") {
		t.Errorf("beside another cookie of ours the application sees %q", got)
	}
}

func (s *proxiedSite) testForgery(t *testing.T) {
	b := s.NewBrowser().SignIn()
	var forged []string
	for _, name := range []string{
		"X-User-Id", "x-user-id", "X_User_Id", "X.User.Id", "X-User_Id", "X-User-Name", "X-User-Email", "X-User-Balance", "X-User-Quota",
		"X-User-Used-Quota", "X-User-Balance-Age", "X-User-Balance-State", "X-Forwarded-Uri", "X-Original-URL", "X-Auth-Request-Redirect",
	} {
		forged = append(forged, name+": forged")
	}
	forged = append(forged, "X-User-Id: forged", "X-User-Email: forged")
	res := rawRequest(t, s.Site, append(append([]string{"GET /page HTTP/1.1", "Host: app", b.CookieLine()}, forged...), "", "")...)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("signed in: %d", res.StatusCode)
	}
	s.wantIdentity(t, "forged headers")
	for _, connection := range []string{"close, X-User-Id", "X-User-Id, keep-alive", "x-user-id"} {
		rawRequest(t, s.Site, "GET /page HTTP/1.1", "Host: app", b.CookieLine(), "Connection: "+connection, "", "")
		s.wantIdentity(t, "Connection: "+connection)
	}
	before := s.Upstream.Requests.Load()
	for _, header := range append(forged, "X-Forwarded-Uri: /oauth/start") {
		if res := rawRequest(t, s.Site, "GET /page HTTP/1.1", "Host: app", header, "", ""); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("not signed in, with %s: %d", header, res.StatusCode)
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests without a session reached the application", n)
	}
}

// wantIdentity checks that the application saw the user and nobody else.
func (s *proxiedSite) wantIdentity(t *testing.T, what string) {
	t.Helper()
	seen := s.Upstream.Last.Load()
	for name, lines := range seen.Header {
		if folded := header.Fold(name); strings.HasPrefix(folded, "x-user-") && (name != http.CanonicalHeaderKey(folded) || len(lines) != 1 || strings.Contains(lines[0], "forged")) {
			t.Errorf("%s: the application saw %s: %q", what, name, lines)
		}
	}
	if seen.Header.Get("X-User-Id") != gatewaytest.UserID || strings.Contains(strings.ToLower(seen.Header.Get("Connection")), "x-user") {
		t.Errorf("%s: the application saw %q", what, seen.Header)
	}
}

func (s *proxiedSite) testScripts(t *testing.T) {
	for what, a := range map[string]*gatewaytest.Answer{
		"a script":  s.NewBrowser().Get("/api/things?x=1", "Referer: "+s.URL+"/page", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"),
		"a form":    s.NewBrowser().Send("POST", "/api/things", strings.NewReader("a=1"), append([]string{"Referer: " + s.URL + "/page"}, gatewaytest.Navigation...)...),
		"an upload": s.NewBrowser().Send("PUT", "/api/things", strings.NewReader(strings.Repeat("x", 200_000)), "Referer: "+s.URL+"/page"),
	} {
		if a.StatusCode != http.StatusUnauthorized || a.JSON(t)["login_url"] != "/oauth/start?return_to=%2Fpage" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %d %s", what, a.StatusCode, a.Text)
		}
	}
	res := rawRequest(t, s.Site, "GET /ws HTTP/1.1", "Host: app", "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "Sec-Fetch-Mode: websocket", "", "")
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a WebSocket: %d", res.StatusCode)
	}
}

func (s *proxiedSite) testBody(t *testing.T) {
	b := s.NewBrowser().SignIn()
	body := strings.Repeat("0123456789", 300_000) // nginx takes 1 MB by default
	if a := b.Send("POST", "/upload?x=1&y", strings.NewReader(body)); a.StatusCode != http.StatusOK {
		t.Fatalf("got %d: %s", a.StatusCode, a.Text)
	}
	if seen := s.Upstream.Last.Load(); seen.Body != body || seen.Method != "POST" || seen.URI != "/upload?x=1&y" || seen.Header.Get("X-User-Id") != gatewaytest.UserID {
		t.Errorf("the application saw %s %s with %d bytes", seen.Method, seen.URI, len(seen.Body))
	}
}

func (s *proxiedSite) testWebSocket(t *testing.T) {
	b := s.NewBrowser().SignIn()
	conn := dial(t, s.Site)
	conn.Write([]byte("GET /ws HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + b.CookieLine() + "\r\n\r\n"))
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", res, err)
	}
	conn.Write([]byte("hello\n"))
	if line, err := reader.ReadString('\n'); err != nil || line != gatewaytest.UserID+" says hello\n" {
		t.Errorf("through the WebSocket: %q, %v", line, err)
	}
}

func (s *proxiedSite) testRefresh(t *testing.T) {
	b := s.NewBrowser().SignIn()
	ticket := b.Cookies()["tollgate"]
	s.Provider.ResetCounts()
	for i := range 3 {
		s.Clock.Advance(2*time.Hour - time.Minute)
		if a := b.Get("/"); a.StatusCode != http.StatusOK || a.Header.Get("Set-Cookie") != "" {
			t.Fatalf("at the %d. refresh: %d, %q", i+1, a.StatusCode, a.Header.Values("Set-Cookie"))
		}
		gatewaytest.Eventually(t, "the tokens are renewed", func() bool {
			return s.Provider.Count(simulator.Refresh) == i+1 && s.Handlers[0].Internals().Renewals.Running.Count() == 0
		})
	}
	if b.Cookies()["tollgate"] != ticket || s.Provider.DoubleSpends() != 0 {
		t.Errorf("another ticket, or %d double spends", s.Provider.DoubleSpends())
	}
}

func (s *proxiedSite) testAssets(t *testing.T) {
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(2*time.Hour - time.Minute)
	s.Provider.ResetCounts()
	var assets sync.WaitGroup
	for i := range 30 {
		assets.Go(func() {
			if a := b.Get(fmt.Sprintf("/asset/%d", i)); a.StatusCode != http.StatusOK {
				t.Errorf("asset %d: %d", i, a.StatusCode)
			}
		})
	}
	assets.Wait()
	gatewaytest.Eventually(t, "the tokens are renewed", func() bool { return s.Provider.Count(simulator.Refresh) > 0 })
	if n := s.Provider.Count(simulator.Refresh); n != 1 || s.Provider.DoubleSpends() != 0 {
		t.Errorf("%d refreshes, %d double spends", n, s.Provider.DoubleSpends())
	}
}

func (s *proxiedSite) testLogout(t *testing.T) {
	b := s.NewBrowser().SignIn()
	stolen := b.Copy()
	if a := b.Send("POST", "/oauth/logout", nil, "Origin: "+s.URL, "Sec-Fetch-Site: same-origin"); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("logout: %d %s", a.StatusCode, a.Text)
	}
	for what, a := range map[string]*gatewaytest.Answer{"the browser": b.Visit("/page"), "a copy of its cookie": stolen.Visit("/page")} {
		if u, err := url.Parse(a.Location()); a.StatusCode != http.StatusFound || err != nil || !strings.HasPrefix(a.Location(), s.ProviderURL) {
			t.Errorf("%s: %d, %q", what, a.StatusCode, u)
		}
	}
}

func (s *proxiedSite) testRefused(t *testing.T) {
	b := s.NewBrowser().SignIn()
	status := func(status int) {
		s.Provider.UpdateUser(12345, func(u *simulator.User) { u.Status = status })
		s.Clock.Advance(20 * time.Minute)
	}
	status(2)
	if a := b.Visit("/page"); a.StatusCode != http.StatusForbidden || a.Header.Get("Retry-After") != "" {
		t.Errorf("got %d, %q", a.StatusCode, a.Header)
	}
	status(simulator.StatusEnabled)
	if a := b.Visit("/page"); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

func (s *proxiedSite) testStoreFault(t *testing.T) {
	b := s.NewBrowser().SignIn()
	ticket := b.Cookies()["tollgate"]
	s.storage.Broken.Store(true)
	s.Handlers[0].Internals().Store.(*records.Tickets).Records.(*storage.Records).Read.InvalidateAll()
	if a := b.Visit("/page"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Location() != "" {
		t.Errorf("got %d, %q", a.StatusCode, a.Header)
	}
	s.storage.Broken.Store(false)
	if a := b.Visit("/page"); a.StatusCode != http.StatusOK || b.Cookies()["tollgate"] != ticket {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}
