package tollgate_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// h2Settings is the value of HTTP2-Settings that a client of h2c sends.
const h2Settings = "AAMAAABkAAQAoAAAAAIAAAAA"

// speakH2C accepts the change of a connection to HTTP/2 (RFC 7540 section 3.2).
func speakH2C(w http.ResponseWriter, r *http.Request) {
	settings, err := base64.RawURLEncoding.DecodeString(r.Header.Get("Http2-Settings"))
	if err != nil {
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	rw.Flush()
	//nolint:staticcheck // SA1019: net/http cannot serve a connection that was upgraded to h2c
	(&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{
		Handler:        http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
		UpgradeRequest: r, Settings: settings,
	})
}

// upgradeRequest is a request of a public path that asks for another protocol.
func upgradeRequest(upgrades ...string) []string {
	lines := []string{
		"GET /open/x HTTP/1.1", "Host: app", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: " + h2Settings,
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
	}
	for _, upgrade := range upgrades {
		lines = append(lines, "Upgrade: "+upgrade)
	}
	return append(lines, "", "")
}

func (s *proxiedSite) testProtocols(t *testing.T) {
	wantH2C(t, s.Upstream.URL)
	for _, upgrades := range [][]string{
		{"h2c"}, {"H2C"}, {"h2c, websocket"}, {"websocket, h2c"}, {"h2c", "websocket"}, {"websocket", "h2c"}, {"TLS/1.0"}, {"websocket2"},
	} {
		before := s.Upstream.Requests.Load()
		res := rawRequest(t, s.Site, upgradeRequest(upgrades...)...)
		if s.Upstream.Requests.Load() == before {
			if res.StatusCode != http.StatusBadRequest {
				t.Errorf("Upgrade %q: got %d, want the application's answer or 400", upgrades, res.StatusCode)
			}
			continue
		}
		seen := s.Upstream.Last.Load().Header.Values("Upgrade")
		if len(seen) > 0 && !slices.Equal(seen, []string{"websocket"}) || strings.Contains(strings.ToLower(res.Header.Get("Upgrade")), "h2c") {
			t.Errorf("Upgrade %q: got %d, the application saw %q", upgrades, res.StatusCode, seen)
		}
	}
	for _, upgrade := range []string{"websocket", "WebSocket", "WEBSOCKET"} {
		res := rawRequestHead(t, s.Site, upgradeRequest(upgrade)...)
		if res.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("Upgrade %q: got %d, want 101", upgrade, res.StatusCode)
		}
	}
}

// rawRequestHead writes a request to the letter and reads the head of the response.
func rawRequestHead(t *testing.T, s *gatewaytest.Site, lines ...string) *http.Response {
	t.Helper()
	conn := dial(t, s)
	fmt.Fprintf(conn, "%s\r\n", strings.Join(lines, "\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", lines, err)
	}
	conn.Close()
	return res
}

// wantH2C checks that the application would accept h2c from a proxy that passes it on.
func wantH2C(t *testing.T, application string) {
	t.Helper()
	conn := dial(t, &gatewaytest.Site{URL: application})
	fmt.Fprintf(conn, "%s\r\n", strings.Join(upgradeRequest("h2c"), "\r\n"))
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the application does not accept h2c: %v, %v", res, err)
	}
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, reader)
	framer.WriteSettings()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("the application does not speak HTTP/2: %v", err)
		}
		if frame.Header().Type == http2.FrameHeaders && frame.Header().StreamID == 1 {
			return
		}
	}
}

func (s *proxiedSite) testTunnels(t *testing.T) {
	before := s.Upstream.Requests.Load()
	for _, method := range []string{"CONNECT", "TRACE"} {
		for _, target := range []string{"app.example.com:443", "/open/x", "http://app/open/x"} {
			if method == "TRACE" && target[0] == 'a' {
				continue
			}
			res := rawRequest(t, s.Site, method+" "+target+" HTTP/1.1", "Host: app", "Connection: close", "", "GET /admin HTTP/1.1", "Host: app", "X-User-Id: 1", "", "")
			if res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s %s: got %d, want 405 or 400", method, target, res.StatusCode)
			}
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the application, want none", n)
	}
}

func (s *proxiedSite) testTargets(t *testing.T) {
	b := s.NewBrowser().SignIn()
	before := s.Upstream.Requests.Load()
	for _, target := range []string{"a:http://x/oauth/health", "x:y", "a:http://x/page", "*", "page", "oauth/health"} {
		res := rawRequest(t, s.Site, "GET "+target+" HTTP/1.1", "Host: app", b.CookieLine(), "", "")
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", target, res.StatusCode)
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the application, want none", n)
	}
	for target, want := range map[string]int{
		"http://app/page": http.StatusOK, "http://app/oauth/auth": http.StatusNotFound, "http://app/oauth/health": http.StatusOK,
		"//app/page": http.StatusOK, "http://app//page": http.StatusOK,
	} {
		res := rawRequest(t, s.Site, "GET "+target+" HTTP/1.1", "Host: app", b.CookieLine(), "", "")
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, res.StatusCode, want)
		}
	}
}

// lookAlikes are names that some server takes for X-User-Id.
var lookAlikes = []string{
	"X_User_Id", "X-User_Id", "X_User-Id", "X_User.Id", "X.User.Id", "X-User.Id", "X.User-Id", "X--User-Id", "X-User--Id", "X-User-_Id",
	"X!User!Id", "X-User#Id", "X$User$Id", "X%User%Id", "X&User&Id", "X'User'Id", "X*User*Id", "X+User+Id", "X^User^Id", "X`User`Id", "X|User|Id", "X~User~Id",
}

func (s *proxiedSite) testLookAlikes(t *testing.T) {
	b := s.NewBrowser().SignIn()
	for _, name := range lookAlikes {
		if s.keepsDoubleHyphens && strings.Contains(name, "--") {
			continue
		}
		for path, cookies := range map[string]string{"/page": b.CookieLine(), "/open/x": "Cookie: a=1"} {
			if res := rawRequest(t, s.Site, "GET "+path+" HTTP/1.1", "Host: app", cookies, name+": forged", "", ""); res.StatusCode != http.StatusOK {
				t.Errorf("%s at %s: got %d, want 200", name, path, res.StatusCode)
			}
			for seen, lines := range s.Upstream.Last.Load().Header {
				if strings.Contains(header.Fold(seen), "x-user-id") && strings.Contains(strings.Join(lines, ","), "forged") {
					t.Errorf("%s at %s: the application saw %s: %q", name, path, seen, lines)
				}
			}
		}
	}
}

// TestExampleCaddyDropsLookAlikeHeadersByItself runs the example where Caddy's own filter lets
// them pass, as Caddy before 2.11.5 did.
func TestExampleCaddyDropsLookAlikeHeadersByItself(t *testing.T) {
	s := newProxiedSite(t, "forward-auth-caddy", func(t *testing.T, a proxyAddresses) {
		frontCaddy(t, a, `servers {
			expected_underscore_headers X_User_Id X-User_Id X_User-Id X_User.Id
			expected_dot_headers X.User.Id X-User.Id X.User-Id X_User.Id
		}`)
	})
	s.testLookAlikes(t)
}

// cookiesOfTollgate are all that a browser can hold.
const cookiesOfTollgate = "tollgate-recent=1; tollgate-login-abc=x; tollgate-login-def=y; tollgate-login-=z; tollgate-signed-out=1; tollgate-2=x; __Host-tollgate=1; __Secure-tollgate-2=1; __Host-tollgate-login-a=1"

func (s *proxiedSite) testCookies(t *testing.T) {
	ticket := "tollgate=" + s.NewBrowser().SignIn().Cookies()["tollgate"]
	interleaved := ""
	for i, own := range strings.Split(cookiesOfTollgate, "; ") {
		interleaved += fmt.Sprintf("%s; a%d=%d; ", own, i, i)
	}
	for sent, want := range map[string]string{
		ticket + "; a=1; b=2":                           "a=1; b=2",
		"a=1; " + ticket + "; b=2":                      "a=1; b=2",
		"a=1; b=2; " + ticket:                           "a=1; b=2",
		ticket:                                          "",
		ticket + "; " + cookiesOfTollgate:               "",
		cookiesOfTollgate + "; a=1; " + ticket:          "a=1",
		ticket + "; a=1; " + cookiesOfTollgate + "; b=": "a=1; b=",
		interleaved + ticket:                            "a0=0; a1=1; a2=2; a3=3; a4=4; a5=5; a6=6; a7=7; a8=8",
		"nottollgate=1; tollgates=2; Tollgate=3; tollgate-other=4; " + ticket + "; x-tollgate=5; y=tollgate=6": "nottollgate=1; tollgates=2; Tollgate=3; tollgate-other=4; x-tollgate=5; y=tollgate=6",
		"a=\"1, 2\"; " + ticket + "; b=tollgate=1":                                                             "a=\"1, 2\"; b=tollgate=1",
		ticket + ";a=1;b=2": "a=1;b=2",
	} {
		rawRequest(t, s.Site, "GET /page HTTP/1.1", "Host: app", "Cookie: "+sent, "", "")
		lines := s.Upstream.Last.Load().Header.Values("Cookie")
		got := strings.ReplaceAll(strings.Join(lines, " | "), "; ", ";")
		if got != strings.ReplaceAll(want, "; ", ";") || want == "" && len(lines) != 0 {
			t.Errorf("of %q the application saw %q, want %q", sent, lines, want)
		}
	}
	// Empty and broken parts may reach the upstream, but not at the start or the end of the header.
	rawRequest(t, s.Site, "GET /page HTTP/1.1", "Host: app", "Cookie: ;; =x; "+ticket+"; tollgate-recent; ;a=1;; tollgate-recent =2 ;; ", "", "")
	got := s.Upstream.Last.Load().Header.Get("Cookie")
	if strings.Contains(got, ticket) || strings.Contains(got, "=2") || !strings.Contains(got, "a=1") || strings.Trim(got, "; ") != got {
		t.Errorf("with broken cookies: the upstream saw %q, want a=1, no session, and no separator at either end", got)
	}
	rawRequest(t, s.Site, "GET /open/x HTTP/1.1", "Host: app", "Cookie: tollgate-recent=1; a=1; tollgate-login-x=1", "", "")
	if got := s.Upstream.Last.Load().Header.Get("Cookie"); got != "a=1" {
		t.Errorf("at a public path the application saw %q, want a=1", got)
	}
}

func (s *proxiedSite) testEventStream(t *testing.T) {
	b := s.NewBrowser().SignIn()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := b.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	reader := bufio.NewReader(res.Body)
	for i := range 3 {
		s.nextEvent <- struct{}{}
		line, err := reader.ReadString('\n')
		if err != nil || line != "data: "+gatewaytest.UserID+"\n" {
			t.Fatalf("event %d is %q, %v", i+1, line, err)
		}
		reader.ReadString('\n')
	}
}

func (s *proxiedSite) testLogs(t *testing.T) {
	b := s.NewBrowser()
	callback := b.Visit(b.Visit("/page?first").Location()).Location()
	u, err := url.Parse(callback)
	if err != nil || u.Query().Get("code") == "" || u.Query().Get("state") == "" {
		t.Fatalf("no callback: %q, %v", callback, err)
	}
	b.Visit("/oauth/start?return_to=/secret-page")
	b.Visit(callback)
	// While tollgate does not answer the proxy logs an error, perhaps with the address.
	whole := s.Server.Handler.Load()
	var broken http.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	s.Server.Handler.Store(&broken)
	if a := b.Visit("/oauth/callback?code=unspent-code&state=unspent-state"); a.StatusCode < 500 {
		t.Errorf("a callback without tollgate: got %d", a.StatusCode)
	}
	s.Server.Handler.Store(whole)
	b.Visit("/page?last")
	gatewaytest.Eventually(t, "the last request is in the log", func() bool { return strings.Contains(manualtest.ReadFile(t, s.log), "/page?last") })
	log := manualtest.ReadFile(t, s.log)
	for what, secret := range map[string]string{
		"the code": u.Query().Get("code"), "the state": u.Query().Get("state"), "a code that is not used": "unspent-code",
		"a state that is not used": "unspent-state", "the start of a sign-in": "secret-page",
	} {
		if i := strings.Index(log, secret); i >= 0 {
			t.Errorf("the log holds %s: %s", what, bytes.TrimSpace([]byte(log[max(0, i-200):min(len(log), i+100)])))
		}
	}
	if !strings.Contains(log, "/page?first") {
		t.Errorf("the log holds no ordinary request:\n%s", log)
	}
}
