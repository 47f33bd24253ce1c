package tollgate

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	siteclock "github.com/caddy-tollgate/tollgate/internal/clock"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const (
	testClientID     = "client_of_the_tests"
	testClientSecret = "secret_of_the_tests_0123456789"
	testSecret       = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	testUserID       = "12345"
)

// TestMain keeps what Caddy stores by default, a made secret among it, out of the
// home of whoever runs the tests.
func TestMain(m *testing.M) {
	if os.Getenv(replicaEnv) != "" {
		if err := runReplica(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	folder, err := os.MkdirTemp("", "tollgate-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	caddy.DefaultStorage.Path = folder
	status := m.Run()
	os.RemoveAll(folder)
	os.Exit(status)
}

// lastPort begins somewhere else in each process: several may run tests at once.
var lastPort atomic.Int64

func init() { lastPort.Store(int64(os.Getpid()) * 61) }

// freePort gives a port below those that the system gives to clients: it stays free
// until the server that it is for has it, and while that is restarted.
func freePort() int {
	for {
		port := 20000 + int(lastPort.Add(1)%12000)
		if listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			listener.Close()
			return port
		}
	}
}

func freeAddress() string { return "127.0.0.1:" + strconv.Itoa(freePort()) }

// provisioning guards the globals that Caddy's provisioning writes.
var provisioning sync.Mutex

// site is a whole gateway in a test: simulated provider, Caddy with tollgate, and an
// upstream that says what it received.
type site struct {
	t        *testing.T
	provider *simulator.Provider
	// providerURL and url are the origins of provider and site; gatewayURL is another
	// one than url where a proxy stands in front.
	providerURL string
	url         string
	gatewayURL  string
	handlers    []*Handler
	upstream    *upstream
	caddyfile   string
	server      *swappable
	options     siteOptions
	clock       *testClock
}

// testClock stands still until a test moves it on, however slow the machine is.
type testClock struct {
	began time.Time // the zero time on a clock that runs
	moved atomic.Int64
	// lease and authTimeout replace the usual ones, unless they are 0.
	lease, authTimeout time.Duration
}

func newClock() *testClock { return &testClock{began: time.Now().Round(0)} }

func (c *testClock) now() time.Time {
	began := c.began
	if began.IsZero() {
		began = time.Now()
	}
	return began.Add(time.Duration(c.moved.Load()))
}

// clocks holds the clocks of the configurations of this process, by number: a
// configuration is text.
var (
	clocks    sync.Map
	lastClock atomic.Int64
)

// addTo adds the clock to a configuration.
func (c *testClock) addTo(config []byte) ([]byte, error) {
	var parsed map[string]any
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, err
	}
	number := lastClock.Add(1)
	clocks.Store(number, c)
	parsed["apps"].(map[string]any)[siteclock.App] = clockApp{Number: number}
	return json.Marshal(parsed)
}

// clockApp is the Caddy app that gives the sites of a configuration their clock.
type clockApp struct {
	Number int64 `json:"number"`
	clock  *testClock
}

func init() { caddy.RegisterModule(clockApp{}) }

func (clockApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: siteclock.App, New: func() caddy.Module { return new(clockApp) }}
}

func (a *clockApp) Provision(caddy.Context) error {
	found, ok := clocks.Load(a.Number)
	if !ok {
		return fmt.Errorf("there is no clock %d", a.Number)
	}
	a.clock = found.(*testClock)
	return nil
}

func (a *clockApp) Start() error { return nil }
func (a *clockApp) Stop() error  { return nil }

func (a *clockApp) Now() time.Time             { return a.clock.now() }
func (a *clockApp) Lease() time.Duration       { return a.clock.lease }
func (a *clockApp) AuthTimeout() time.Duration { return a.clock.authTimeout }

func (c *testClock) advance(d time.Duration) { c.moved.Add(int64(d)) }

// siteOptions are what a test wants otherwise than usual.
type siteOptions struct {
	provider simulator.Options
	// inProvider and inTollgate are more lines for those blocks.
	inProvider string
	inTollgate string
	// before and after are more directives for the site.
	before, after string
	storage       string           // a folder of breakableStorages; default: plain files
	handler       http.HandlerFunc // the upstream's own; default: echo
	front         string           // the URL of a proxy in front
}

// upstream answers every request with what it received, as JSON.
type upstream struct {
	*httptest.Server
	requests atomic.Int64
	streams  atomic.Int64 // that are open; see serveStream
	last     atomic.Pointer[received]
}

// received is a request as the upstream saw it.
type received struct {
	Method  string
	URI     string
	Header  http.Header
	Trailer http.Header
	Body    string
}

func newUpstream(t *testing.T, own http.HandlerFunc) *upstream {
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		seen := &received{r.Method, r.RequestURI, r.Header.Clone(), r.Trailer.Clone(), string(body)}
		u.last.Store(seen)
		if own != nil {
			own(w, r)
			return
		}
		if u.serveStream(w, r) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(seen)
	}))
	t.Cleanup(u.Close)
	return u
}

// swappable is a server whose handler can be replaced while it serves: a config
// reload without ports.
type swappable struct {
	handler atomic.Pointer[http.Handler]
}

func (s *swappable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.handler.Load()).ServeHTTP(w, r)
}

// newSite starts provider, upstream and gateway.
func newSite(t *testing.T, options siteOptions) *site {
	t.Helper()
	s := &site{t: t, options: options, server: &swappable{}, clock: newClock()}
	s.upstream = newUpstream(t, options.handler)
	front := httptest.NewServer(s.server)
	t.Cleanup(front.Close)
	s.url, s.gatewayURL = front.URL, front.URL
	if options.front != "" {
		s.url = options.front
	}

	options.provider.AllowLoginHint = true
	options.provider.Now = s.clock.now
	if options.provider.AutoLogin == "" {
		options.provider.AutoLogin = "user123"
	}
	s.provider = simulator.New(options.provider)
	s.provider.SetClient(simulator.Client{
		ID: testClientID, Secret: testClientSecret, Name: "Tests",
		RedirectURIs: []string{s.url + "/oauth/callback"},
	})
	providerServer := httptest.NewServer(s.provider)
	t.Cleanup(providerServer.Close)
	s.providerURL = providerServer.URL

	s.caddyfile = s.minimal()
	s.Load()
	t.Cleanup(func() {
		for _, h := range s.handlers {
			h.Cleanup()
		}
	})
	return s
}

func (s *site) minimal() string {
	storage := "file_system " + s.t.TempDir()
	if s.options.storage != "" {
		storage = "tollgate_tests " + s.options.storage
	}
	return fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	storage %s
}
http:// {
	%s
	tollgate {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
			%s
		}
		redirect_uri %s/oauth/callback
		secret %s
		%s
	}
	reverse_proxy %s
	%s
}
`, storage, s.options.before, s.providerURL, testClientID, testClientSecret, s.options.inProvider,
		s.url, testSecret, s.options.inTollgate, s.upstream.URL, s.options.after)
}

// Load provisions the Caddyfile and serves it from now on; requests that are under
// way finish on the handlers of before.
func (s *site) Load() {
	s.t.Helper()
	server, handlers, err := provisionWith(s.clock, s.caddyfile)
	if err != nil {
		s.t.Fatalf("loading the config: %v\n%s", err, s.caddyfile)
	}
	old := s.handlers
	s.handlers = handlers
	var handler http.Handler = server
	s.server.handler.Store(&handler)
	for _, h := range old {
		if err := h.Cleanup(); err != nil {
			s.t.Errorf("cleaning up: %v", err)
		}
	}
}

// provision builds a Caddyfile through Caddy's own adapter and provisioning.
func provision(text string) (*caddyhttp.Server, []*Handler, error) { return provisionWith(nil, text) }

// provisionWith builds a Caddyfile whose sites run on a clock.
func provisionWith(c *testClock, text string) (*caddyhttp.Server, []*Handler, error) {
	config, err := adaptWith(c, text)
	if err != nil {
		return nil, nil, err
	}
	return provisionJSON(config)
}

// adaptWith adapts a Caddyfile, and adds the clock on which its sites run.
func adaptWith(c *testClock, text string) ([]byte, error) {
	config, err := adapt(text)
	if err != nil || c == nil {
		return config, err
	}
	return c.addTo(config)
}

func adapt(text string) ([]byte, error) {
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	config, _, err := adapter.Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	return config, err
}

func provisionJSON(config []byte) (*caddyhttp.Server, []*Handler, error) {
	provisioning.Lock()
	defer provisioning.Unlock()
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		return nil, nil, err
	}
	ctx, err := caddy.ProvisionContext(&parsed)
	if err != nil {
		return nil, nil, err
	}
	app, err := ctx.App("http")
	if err != nil {
		return nil, nil, err
	}
	server := app.(*caddyhttp.App).Servers["srv0"]
	return server, handlersIn(server.Routes), nil
}

// handlersIn finds the tollgate handlers of a server, which a test cleans up itself:
// a provisioned config that is not run has nobody who would.
func handlersIn(routes caddyhttp.RouteList) []*Handler {
	var found []*Handler
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *Handler:
				found = append(found, h)
			case *caddyhttp.Subroute:
				found = append(found, handlersIn(h.Routes)...)
			}
		}
	}
	return found
}

// visitor is a client with a cookie jar that follows no redirect by itself.
type visitor struct {
	t *testing.T
	*http.Client
	site *site
}

func (s *site) newBrowser() *visitor {
	jar, _ := cookiejar.New(nil)
	return &visitor{t: s.t, site: s, Client: &http.Client{
		Jar:     jar,
		Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
}

// answer is a response that was read whole.
type answer struct {
	*http.Response
	text string
}

func (a *answer) location() string { return a.Header.Get("Location") }

// seen is the request as the upstream saw it, where it answered by itself.
func (a *answer) seen(t *testing.T) received {
	t.Helper()
	var seen received
	if err := json.Unmarshal([]byte(a.text), &seen); err != nil {
		t.Fatalf("no answer of the upstream: status %d: %s", a.StatusCode, a.text)
	}
	return seen
}

// do sends a request. Headers come as "Name: value".
func (b *visitor) do(method, target string, body io.Reader, headers ...string) *answer {
	b.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.site.url + target
	}
	req, err := http.NewRequestWithContext(context.Background(), method, target, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value // Go's client leaves out a Host among the headers
			continue
		}
		req.Header.Add(name, value)
	}
	res, err := b.Client.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, target, err)
	}
	return &answer{res, string(text)}
}

// navigation is what a browser says when a person goes to a page.
var navigation = []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none", "Accept: text/html,application/xhtml+xml,*/*;q=0.8"}

// Get is a script's request; visit is a person's.
func (b *visitor) Get(target string, headers ...string) *answer {
	b.t.Helper()
	return b.do(http.MethodGet, target, nil, headers...)
}

func (b *visitor) visit(target string, headers ...string) *answer {
	b.t.Helper()
	return b.do(http.MethodGet, target, nil, append(append([]string(nil), navigation...), headers...)...)
}

// follow visits a page and every redirect from there.
func (b *visitor) follow(target string) *answer {
	b.t.Helper()
	a := b.visit(target)
	for range 10 {
		if a.StatusCode < 300 || a.StatusCode > 399 {
			return a
		}
		next, err := a.Request.URL.Parse(a.location())
		if err != nil {
			b.t.Fatal(err)
		}
		a = b.visit(next.String())
	}
	b.t.Fatalf("more than ten redirects from %s", target)
	return nil
}

// signIn goes through a whole sign-in.
func (b *visitor) signIn() *visitor {
	b.t.Helper()
	a := b.follow("/")
	if a.StatusCode != http.StatusOK || a.seen(b.t).Header.Get("X-User-Id") == "" {
		b.t.Fatalf("signing in: status %d: %s", a.StatusCode, a.text)
	}
	return b
}

// cookies are the gateway's cookies in the jar, by name, but for the one that counts
// recent sign-ins.
func (b *visitor) cookies() map[string]string {
	u, _ := url.Parse(b.site.url)
	found := map[string]string{}
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, "tollgate") && c.Name != "tollgate-recent" {
			found[c.Name] = c.Value
		}
	}
	return found
}

// setCookie puts a cookie into the jar.
func (b *visitor) setCookie(name, value string) {
	u, _ := url.Parse(b.site.url)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

// copyOf is another browser with the same cookies.
func (b *visitor) copyOf() *visitor {
	c := b.site.newBrowser()
	for name, value := range b.cookies() {
		c.setCookie(name, value)
	}
	return c
}

// eventually waits for something that happens apart from any request.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("timed out waiting until %s", what)
}

var consentForm = regexp.MustCompile(`(?s)<form method="post" action="([^"]+)">\s*<input type="hidden" name="user" value="([^"]+)">`)

// pressAllow agrees on the provider's consent page, and follows from there.
func (b *visitor) pressAllow(page *answer) *answer {
	b.t.Helper()
	form := consentForm.FindStringSubmatch(page.text)
	if form == nil {
		b.t.Fatalf("no consent form: %s", page.text)
	}
	action, err := page.Request.URL.Parse(html.UnescapeString(form[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	body := url.Values{"user": {form[2]}, "decision": {"allow"}}
	a := b.do(http.MethodPost, action.String(), strings.NewReader(body.Encode()),
		"Content-Type: application/x-www-form-urlencoded", "Origin: "+b.site.providerURL)
	return b.follow(a.location())
}
