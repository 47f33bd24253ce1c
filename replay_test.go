package tollgate_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// picky is an upstream that accepts any token but the ones that were revoked.
type picky struct {
	revoked sync.Map // of string
	always  atomic.Bool
	calls   atomic.Int64
	refused atomic.Int64
	// answer is what it says to a token that it accepts.
	answer http.HandlerFunc
}

func (p *picky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.calls.Add(1)
	_, revoked := p.revoked.Load(r.Header.Get("Authorization"))
	if revoked || p.always.Load() {
		io.Copy(io.Discard, r.Body)
		p.refused.Add(1)
		w.Header().Set("X-First", "leak")
		w.Header().Add("Set-Cookie", "first=leak")
		w.Header().Set("Tollgate-Balance", "changed")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "refused by the upstream")
		return
	}
	p.answer(w, r)
}

// echoHash answers with what makes up a request.
func echoHash(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, _ := io.Copy(sum, r.Body)
	w.Header().Add("Set-Cookie", "second=1")
	fmt.Fprintf(w, "%s %s %q %d %d %x %q", r.Method, r.RequestURI, r.Header.Get("X-Own"), r.ContentLength, n, sum.Sum(nil), r.Trailer.Get("X-Last"))
}

// newPickySite is a site before such an upstream, which is reached with the lines given
// in place of the site's own `reverse_proxy`; %s is its address.
func newPickySite(t *testing.T, options gatewaytest.Options, way string) (*gatewaytest.Site, *picky) {
	t.Helper()
	up := &picky{answer: echoHash}
	server := httptest.NewServer(up)
	t.Cleanup(server.Close)
	options.InTollgate += "\npass_access_token"
	s := gatewaytest.New(t, options)
	s.Caddyfile = strings.Replace(s.Caddyfile, "reverse_proxy "+s.Upstream.URL, strings.ReplaceAll(way, "UPSTREAM", server.URL), 1)
	s.Load()
	return s, up
}

const straight = "reverse_proxy UPSTREAM"

// revoke makes the upstream refuse the token that a browser's session has.
func (p *picky) revoke(b *gatewaytest.Browser) {
	h := b.Site.Handlers[0]
	s, _ := h.Internals().Sessions.Latest(sessionOf(b.Site, b))
	p.revoked.Store("Bearer "+s.Tokens.Access, true)
}

func TestRevokedTokenIsRefreshedWithoutASignIn(t *testing.T) {
	for _, store := range []string{"cookie", "storage"} {
		s, up := newPickySite(t, gatewaytest.Options{InTollgate: "session {\nstore " + store + "\n}"}, straight)
		b := s.NewBrowser()
		b.Follow("/")
		up.revoke(b)
		reads := s.Provider.Count(simulator.UserInfo)
		a := b.Send("PUT", "/a%2Fb?c=%20d", strings.NewReader("hello"), "X-Own: kept")
		want := fmt.Sprintf(`PUT /a%%2Fb?c=%%20d "kept" 5 5 %x ""`, sha256.Sum256([]byte("hello")))
		if a.StatusCode != 200 || a.Text != want {
			t.Errorf("%s: %d, %q, want %q", store, a.StatusCode, a.Text, want)
		}
		cookies := strings.Join(a.Header.Values("Set-Cookie"), "|")
		if a.Header.Get("X-First") != "" || a.Header.Get("Tollgate-Balance") != "" || strings.Contains(cookies, "first=") || strings.Count(cookies, "second=") != 1 {
			t.Errorf("%s: the first answer leaks: %v", store, a.Header)
		}
		if got := strings.Count(cookies, "tollgate="); got != map[string]int{"cookie": 1, "storage": 0}[store] || len(a.Header.Values("Content-Length")) != 1 {
			t.Errorf("%s: %d session cookies in %v", store, got, a.Header)
		}
		if s.Refreshes() != 1 || up.refused.Load() != 1 || b.Get("/").StatusCode != 200 || up.refused.Load() != 1 {
			t.Errorf("%s: %d refreshes, %d refusals", store, s.Refreshes(), up.refused.Load())
		}
		if s.Provider.Count(simulator.UserInfo) != reads {
			t.Errorf("%s: the answer that was dropped changed the balance", store)
		}
	}
}

func TestReplayedResponseReportsTheBalance(t *testing.T) {
	s, up := newPickySite(t, gatewaytest.Options{}, straight)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tollgate-Balance", "changed")
		w.Header().Add("Set-Cookie", "tollgate=evil")
	}
	b := s.NewBrowser()
	b.Follow("/oauth/start")
	reads := s.Provider.Count(simulator.UserInfo)
	up.revoke(b)
	a := b.Get("/")
	b.Get("/")
	if a.Header.Get("Tollgate-Balance") != "" || strings.Contains(fmt.Sprint(a.Header), "evil") || s.Provider.Count(simulator.UserInfo) == reads {
		t.Errorf("%v, %d reads after %d", a.Header, s.Provider.Count(simulator.UserInfo), reads)
	}
}

func TestParallelRefusedRequestsShareOneRefresh(t *testing.T) {
	for _, store := range []string{"cookie", "storage"} {
		s, up := newPickySite(t, gatewaytest.Options{InTollgate: "session {\nstore " + store + "\n}"}, straight)
		b := s.NewBrowser()
		b.Follow("/")
		up.revoke(b)
		body := make([]byte, 100_000)
		rand.Read(body)
		// Nobody is refused before all have come.
		const n = 50
		want := fmt.Sprintf("%x", sha256.Sum256(body))
		var arrived, done sync.WaitGroup
		arrived.Add(n)
		hold := &holdFirst{picky: up, arrived: &arrived}
		server := httptest.NewServer(hold)
		t.Cleanup(server.Close)
		s.Caddyfile = s.Caddyfile[:strings.LastIndex(s.Caddyfile, "reverse_proxy ")] + "reverse_proxy " + server.URL + "\n}\n"
		s.Load()
		up.calls.Store(0)
		for range n {
			c := b.Copy()
			done.Go(func() {
				if a := c.Send("POST", "/", bytes.NewReader(body)); a.StatusCode != 200 || !strings.Contains(a.Text, want) {
					t.Errorf("%s: %d %s", store, a.StatusCode, a.Text)
				}
			})
		}
		done.Wait()
		if s.Refreshes() != 1 || up.refused.Load() != n || up.calls.Load() != 2*n {
			t.Errorf("%s: %d refreshes, %d refusals, %d calls", store, s.Refreshes(), up.refused.Load(), up.calls.Load())
		}
		s.WantNoDoubleSpend()
	}
}

// holdFirst lets no request with a revoked token through before all have arrived.
type holdFirst struct {
	*picky
	arrived *sync.WaitGroup
}

func (h *holdFirst) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, revoked := h.revoked.Load(r.Header.Get("Authorization")); revoked {
		h.arrived.Done()
		h.arrived.Wait()
	}
	h.picky.ServeHTTP(w, r)
}

func TestUpstreamThatAlwaysAnswers401CausesOneRetryAndOneRefresh(t *testing.T) {
	s, up := newPickySite(t, gatewaytest.Options{}, straight)
	b := s.NewBrowser()
	b.Follow("/")
	up.always.Store(true)
	up.calls.Store(0)
	a := b.Get("/")
	if a.StatusCode != 401 || a.Text != "refused by the upstream" || a.Header.Get("X-First") == "" || up.calls.Load() != 2 {
		t.Errorf("%d %q, %d calls", a.StatusCode, a.Text, up.calls.Load())
	}
	var all sync.WaitGroup
	for range 30 {
		c := b.Copy()
		all.Go(func() {
			for range 3 {
				c.Get("/")
			}
		})
	}
	all.Wait()
	if s.Refreshes() != 1 || up.calls.Load() > 2+2*90 {
		t.Errorf("%d refreshes, %d calls", s.Refreshes(), up.calls.Load())
	}
}

func TestUpstreams401PassesIfTheRefreshFails(t *testing.T) {
	s, up := newPickySite(t, gatewaytest.Options{}, straight)
	b := s.NewBrowser()
	b.Follow("/")
	up.revoke(b)
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Status: 503})
	if a := b.Get("/"); a.StatusCode != 401 || a.Text != "refused by the upstream" {
		t.Errorf("while the provider fails: %d %q", a.StatusCode, a.Text)
	}
	s.Provider.ClearFaults()
	s.Clock.Advance(time.Minute)
	s.Provider.RevokeUser(12345)
	a := b.Get("/")
	if a.StatusCode != 401 || !strings.Contains(a.Text, "login_url") || a.Header.Get("X-First") != "" || a.Header.Get("WWW-Authenticate") != `Cookie realm="tollgate"` {
		t.Errorf("when the session is over: %d %q %v", a.StatusCode, a.Text, a.Header)
	}
	if a := b.Visit("/"); a.StatusCode != 302 {
		t.Errorf("a person then: %d", a.StatusCode)
	}
}

func TestRetryUnauthorizedCanBeTurnedOff(t *testing.T) {
	s, up := newPickySite(t, gatewaytest.Options{InTollgate: "retry_unauthorized off"}, straight)
	b := s.NewBrowser()
	b.Follow("/")
	up.revoke(b)
	if a := b.Get("/"); a.StatusCode != 401 || s.Refreshes() != 0 {
		t.Errorf("%d, %d refreshes", a.StatusCode, s.Refreshes())
	}
}

// TestRetryTakesTheSameRoute fails, too, should Caddy note the routes taken elsewhere.
func TestRetryTakesTheSameRoute(t *testing.T) {
	for way, uri := range map[string]string{
		"route {\nreverse_proxy UPSTREAM\n}":                                                                    "/a/b?c=1",
		"handle /x/* {\nrespond x\n}\nhandle {\nreverse_proxy UPSTREAM\n}":                                      "/a/b?c=1",
		"handle_path /a/* {\nreverse_proxy UPSTREAM\n}\nhandle {\nrespond other\n}":                             "/b?c=1",
		"rewrite /a/* /r{uri}\nreverse_proxy UPSTREAM":                                                          "/r/a/b?c=1",
		"route {\nuri strip_prefix /a\nencode gzip\nrequest_body {\nmax_size 2MB\n}\nreverse_proxy UPSTREAM\n}": "/b?c=1",
		"route {\nvars own {http.vars.own}+\nrequest_header X-Own {http.vars.own}\nreverse_proxy UPSTREAM\n}":   "/a/b?c=1",
		"route {\nrequest_header X-Own {http.request.header.X-Own}+\nreverse_proxy UPSTREAM\n}":                 "/a/b?c=1",
	} {
		s, up := newPickySite(t, gatewaytest.Options{}, way)
		b := s.NewBrowser()
		b.Follow("/a/b")
		up.revoke(b)
		before := up.refused.Load()
		a := b.Send("POST", "/a/b?c=1", strings.NewReader("hello"), "X-Own: kept")
		own := "kept"
		if strings.Contains(way, "request_header") {
			own = "kept+"
		}
		if strings.Contains(way, "vars") {
			own = "+"
		}
		want := fmt.Sprintf(`POST %s %q 5 5 %x ""`, uri, own, sha256.Sum256([]byte("hello")))
		if a.StatusCode != 200 || a.Text != want || up.refused.Load() != before+1 || len(a.Header.Values("Vary")) > 1 {
			t.Errorf("%s:\n%d %q, want %q, %d refusals", way, a.StatusCode, a.Text, want, up.refused.Load()-before)
		}
	}
}

// unsized hides a body's length, so that it is sent in chunks.
type unsized struct{ io.Reader }

func TestBodyUpToTheLimitIsSentAgain(t *testing.T) {
	for _, c := range []struct{ size, status int }{{maxReplayedBody, 200}, {maxReplayedBody + 1, 401}} {
		for _, chunked := range []bool{false, true} {
			s, up := newPickySite(t, gatewaytest.Options{}, straight)
			b := s.NewBrowser()
			b.Follow("/")
			body := bytes.Repeat([]byte("0123456789abcdef"), maxReplayedBody/16+1)[:c.size]
			var reader io.Reader = bytes.NewReader(body)
			if chunked {
				reader = unsized{reader}
			}
			up.revoke(b)
			a := b.Send("POST", "/", reader)
			if a.StatusCode != c.status {
				t.Errorf("%d bytes, chunked %v: %d", c.size, chunked, a.StatusCode)
			}
			if a.StatusCode == 200 && !strings.Contains(a.Text, fmt.Sprintf("%x", sha256.Sum256(body))) {
				t.Errorf("%d bytes, chunked %v: another body: %s", c.size, chunked, a.Text)
			}
			if a := b.Get("/"); a.StatusCode != 200 || up.refused.Load() != 1 {
				t.Errorf("%d bytes, chunked %v: the token was not renewed", c.size, chunked)
			}
		}
	}
}

func TestTrailersAreSentAgain(t *testing.T) {
	s, up := newPickySite(t, gatewaytest.Options{}, straight)
	b := s.NewBrowser()
	b.Follow("/")
	up.revoke(b)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/", unsized{strings.NewReader("hello")})
	req.Trailer = http.Header{"X-Last": {"end"}}
	res, err := b.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 || !strings.HasSuffix(string(text), `"end"`) || up.refused.Load() != 1 {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

// zeros gives n bytes.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n)
	z.n -= n
	return int(n), nil
}

func TestALargeUploadStreamsThroughInFlatMemory(t *testing.T) {
	const size = 100 << 20
	for _, chunked := range []bool{true, false} {
		var highest, base uint64
		s, up := newPickySite(t, gatewaytest.Options{}, straight)
		up.answer = func(w http.ResponseWriter, r *http.Request) {
			var stats runtime.MemStats
			total, buffer, next := int64(0), make([]byte, 64<<10), int64(0)
			for {
				n, err := r.Body.Read(buffer)
				total += int64(n)
				if total > next {
					runtime.GC()
					runtime.ReadMemStats(&stats)
					highest, next = max(highest, stats.HeapAlloc), next+size/5
				}
				if err != nil {
					break
				}
			}
			fmt.Fprint(w, total)
		}
		b := s.NewBrowser()
		b.Follow("/")
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		base, highest = stats.HeapAlloc, 0
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/", &zeros{size})
		if !chunked {
			req.ContentLength = size
		}
		res, err := b.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(text) != fmt.Sprint(size) || highest > base+8<<20 {
			t.Errorf("chunked %v: %s bytes arrived, the heap grew from %d to %d", chunked, text, base, highest)
		}
	}
}

func TestKeptBodyIsReleasedWithTheResponse(t *testing.T) {
	const streams = 30
	s, up := newPickySite(t, gatewaytest.Options{}, straight)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "1")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	b := s.NewBrowser()
	b.Follow("/")
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	base := heap()
	for range streams {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/", &zeros{maxReplayedBody})
		res, err := b.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.ReadFull(res.Body, make([]byte, 1)); err != nil || res.StatusCode != 200 {
			t.Fatal(res.StatusCode, err)
		}
	}
	if grown := heap() - base; grown > streams*maxReplayedBody/2 {
		t.Errorf("%d answers that go on hold %d bytes", streams, grown)
	}
}

func TestWebSocketIsRetriedWithANewToken(t *testing.T) {
	s, up := newPickySite(t, gatewaytest.Options{}, straight)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		rw.WriteString("echo " + line)
		rw.Flush()
	}
	b := s.NewBrowser()
	b.Follow("/")
	up.revoke(b)
	conn := dial(t, s)
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.Write([]byte("GET /ws HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + b.CookieLine() + "\r\n\r\n"))
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("X-First") != "" || up.refused.Load() != 1 {
		t.Fatalf("got %d, %v, %d refusals", res.StatusCode, res.Header, up.refused.Load())
	}
	conn.Write([]byte("hello\n"))
	if line, err := reader.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Errorf("through the WebSocket: %q, %v", line, err)
	}
}

func TestEventStreamIsRetriedWithANewToken(t *testing.T) {
	s, up := newPickySite(t, gatewaytest.Options{}, straight)
	over := make(chan struct{})
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			return
		}
		w.Header().Set("Link", "</s.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		<-over
	}
	b := s.NewBrowser()
	b.Follow("/")
	up.revoke(b)
	defer close(over)
	var hints atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		hints.Add(1)
		return nil
	}})
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/events", nil)
	req.Header.Set("Accept", "text/event-stream")
	res, err := b.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	if err != nil || line != "data: 1\n" || res.StatusCode != 200 || hints.Load() != 1 || up.refused.Load() != 1 {
		t.Errorf("%d, %q, %v, %d hints", res.StatusCode, line, err, hints.Load())
	}
}

func TestAuthReturnsTheTokenOnlyToTrustedProxies(t *testing.T) {
	for _, c := range []struct {
		peer, said string
		want       bool
	}{
		{anyPeer, "/a", true},
		{noPeer, "/a", false},
		{anyPeer, "", false},
		{anyPeer, "/oauth/auth", false},
		{anyPeer, "/oauth/auth/a?b=1", false},
		{anyPeer, "/oauth/userinfo", false},
		{anyPeer, "/a;/..%2foauth/auth", false},
	} {
		for _, option := range []string{"pass_access_token", "pass_access_token X-Token"} {
			s := gatewaytest.New(t, asked(c.peer, option))
			b := s.NewBrowser().SignIn()
			name, prefix := "Authorization", "Bearer "
			if strings.Contains(option, "X-Token") {
				name, prefix = "X-Token", ""
			}
			var says []string
			if c.said != "" {
				says = []string{"X-Forwarded-Uri: " + c.said}
			}
			want := ""
			if c.want {
				want = prefix + sessionOf(s, b).Tokens.Access
			}
			a := b.Get("/oauth/auth", says...)
			wantAuth(a, t, option, 200, "", gatewaytest.UserID)
			if got := a.Header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%v, %s: a token is there: %v", c, option, len(got) > 0 && got[0] != "")
			}
			if got := s.NewBrowser().Get("/oauth/auth", says...).Header.Values(name); len(got) != 1 || got[0] != "" {
				t.Errorf("%v, %s: without a session the header is not empty", c, option)
			}
		}
	}
}
