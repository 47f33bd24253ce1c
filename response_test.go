package tollgate_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

func TestAnUpstreamCannotSetOurCookies(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public", Handler: func(w http.ResponseWriter, r *http.Request) {
		for _, line := range []string{"a=1; Path=/", "tollgate=evil; Path=/", "tollgate-2=evil", "b=2", "tollgate-login-x=evil", " tollgate =evil", "=tollgate=evil", " = tollgate-2 =evil", "tollgate", "Tollgate=other"} {
			w.Header().Add("Set-Cookie", line)
		}
		w.WriteHeader(http.StatusTeapot)
	}})
	b := s.NewBrowser()
	want := "a=1; Path=/|b=2|Tollgate=other"
	if got := strings.Join(b.Get("/public").Header.Values("Set-Cookie"), "|"); got != want {
		t.Errorf("public: got %q, want %q", got, want)
	}
	b.Follow("/public/x")
	if a := b.Get("/"); a.StatusCode != http.StatusTeapot || strings.Join(a.Header.Values("Set-Cookie"), "|") != want {
		t.Errorf("protected: %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

func TestAnAnswerWithOurCookieIsNotCached(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600, s-maxage=3600")
		w.Header().Set("Expires", "Thu, 01 Dec 2094 16:00:00 GMT")
		w.Header().Set("CDN-Cache-Control", "max-age=3600")
		w.Header().Set("ETag", `"x"`)
		w.Write([]byte("ok"))
	}})
	b := s.NewBrowser()
	b.Follow("/")
	a := b.Get("/")
	if a.Header.Get("Cache-Control") != "public, max-age=3600, s-maxage=3600" || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("without our cookie the upstream's words are changed: %v", a.Header)
	}
	s.Clock.Advance(over)
	a = b.Get("/")
	if a.Header.Get("Set-Cookie") == "" {
		t.Fatalf("after the access token expired: got no Set-Cookie, want a new session cookie; header %v", a.Header)
	}
	if got := a.Header["Cache-Control"]; len(got) != 1 || got[0] != "private, no-store" || a.Header.Get("Expires") != "" || a.Header.Get("CDN-Cache-Control") != "" {
		t.Errorf("with our cookie: %v", a.Header)
	}
}

// TestNoCacheHeaderSurvivesBesideOurCookie: each of these has some cache or CDN store an
// answer, and takes precedence over Cache-Control there.
func TestNoCacheHeaderSurvivesBesideOurCookie(t *testing.T) {
	steering := []string{
		"Expires", "Surrogate-Control", "CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Netlify-CDN-Cache-Control",
		"Vercel-CDN-Cache-Control", "X-LiteSpeed-Cache-Control", "any-new-cache-control", "Edge-Control", "X-Accel-Expires",
	}
	kept := []string{"ETag", "Last-Modified", "Vary", "Age", "Cache-Tag", "X-Accel-Buffering", "X-Cache-Controller"}
	for said, want := range map[string]string{
		"":                               "private, no-store",
		"public, max-age=3600":           "private, no-store",
		"no-store":                       "no-store",
		"no-store\npublic, max-age=3600": "private, no-store",
	} {
		s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range slices.Concat(steering, kept) {
				w.Header().Set(name, "max-age=3600")
			}
			if said != "" {
				w.Header()["Cache-Control"] = strings.Split(said, "\n")
			}
		}})
		b := s.NewBrowser()
		b.Follow("/")
		if a := b.Get("/"); a.Header.Get("Set-Cookie") != "" || a.Header.Get("Edge-Control") == "" {
			t.Errorf("without our cookie: %v, want the upstream's words", a.Header)
		}
		s.Clock.Advance(over)
		a := b.Get("/")
		if got := a.Header["Cache-Control"]; a.Header.Get("Set-Cookie") == "" || len(got) != 1 || got[0] != want {
			t.Errorf("%q: Cache-Control %q, Set-Cookie %q; want %q and our cookie", said, got, a.Header.Get("Set-Cookie"), want)
		}
		for _, name := range steering {
			if got, there := a.Header[textproto.CanonicalMIMEHeaderKey(name)]; there {
				t.Errorf("%q: %s is %q, want none", said, name, got)
			}
		}
		for _, name := range kept {
			if a.Header.Get(name) == "" {
				t.Errorf("%q: %s is missing", said, name)
			}
		}
	}
}

func TestEarlyHintsContainNoneOfOurCookies(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.Header().Add("Set-Cookie", "tollgate=evil")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	}})
	b := s.NewBrowser()
	b.Follow("/")
	s.Clock.Advance(over)
	hints := 0
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
			hints++
			if got := header.Values("Set-Cookie"); len(got) != 0 {
				t.Errorf("a 103 carries %q", got)
			}
			return nil
		},
	})
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/", nil)
	res, err := b.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if hints != 1 || len(res.Header.Values("Set-Cookie")) != 1 || strings.Contains(res.Header.Get("Set-Cookie"), "evil") {
		t.Errorf("%d hints; the answer itself carries %q", hints, res.Header.Values("Set-Cookie"))
	}
}

func TestEventStreamPassesAtOnceWithTheNewCookie(t *testing.T) {
	more := make(chan struct{})
	s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-more
		w.Write([]byte("data: 1\n\n"))
		http.NewResponseController(w).Flush()
		<-more
	}})
	defer close(more)
	b := s.NewBrowser()
	b.Follow("/")
	s.Clock.Advance(over)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/events", nil)
	res, err := b.Client.Do(req)
	if err != nil {
		t.Fatalf("the header did not pass before the first event: %v", err)
	}
	defer res.Body.Close()
	if res.Header.Get("Set-Cookie") == "" {
		t.Errorf("got no Set-Cookie, want the new session cookie; header %v", res.Header)
	}
	more <- struct{}{}
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Errorf("the first event: %q, %v", line, err)
	}
}

func TestAWebSocketPasses(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: tollgate=evil\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		rw.WriteString("echo " + line)
		rw.Flush()
	}})
	b := s.NewBrowser()
	b.Follow("/")
	s.Clock.Advance(over)
	conn := dial(t, s)
	conn.Write([]byte("GET /ws HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + b.CookieLine() + "\r\n\r\n"))
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || len(res.Header.Values("Set-Cookie")) != 1 || strings.Contains(res.Header.Get("Set-Cookie"), "evil") {
		t.Errorf("got %d, %q", res.StatusCode, res.Header.Values("Set-Cookie"))
	}
	conn.Write([]byte("hello\n"))
	if line, err := reader.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Errorf("through the WebSocket: %q, %v", line, err)
	}
}

func TestBalanceHeaderIsRemovedAndForcesARead(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	spend := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/spend" {
			s.Provider.Spend(12345, 100)
			w.Header().Set("Tollgate-Balance", "changed")
		}
		w.Write([]byte(r.Header.Get("X-User-Balance") + " " + r.Header.Get("X-User-Balance-State")))
	}
	up := gatewaytest.NewUpstream(t, spend)
	s.Caddyfile = strings.Replace(s.Caddyfile, s.Upstream.URL, up.URL, 1)
	s.Load()
	b := s.NewBrowser()
	b.Follow("/")
	a := b.Get("/spend")
	if a.Text != "750.00 fresh" || a.Header.Get("Tollgate-Balance") != "" {
		t.Errorf("spending: %q, %q", a.Text, a.Header.Get("Tollgate-Balance"))
	}
	if a := b.Get("/"); a.Text != "749.00 fresh" {
		t.Errorf("afterwards: %q", a.Text)
	}
}

// spendingSite has an upstream whose /spend takes a dollar and says so as a test wants,
// and which says elsewhere which balance it is told.
func spendingSite(t *testing.T, say func(w http.ResponseWriter, spend func())) (*gatewaytest.Site, *gatewaytest.Browser) {
	t.Helper()
	var s *gatewaytest.Site
	s = gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/spend" {
			say(w, func() { s.Provider.Spend(12345, 100) })
			return
		}
		w.Write([]byte(r.Header.Get("X-User-Balance") + " " + r.Header.Get("X-User-Balance-State")))
	}})
	b := s.NewBrowser()
	b.Follow("/")
	return s, b
}

func TestLongResponseOutdatesTheBalanceAtItsEnd(t *testing.T) {
	for name, kind := range map[string]string{"event stream": "text/event-stream", "other": "text/plain"} {
		t.Run(name, func(t *testing.T) {
			goOn := make(chan bool)
			_, b := spendingSite(t, func(w http.ResponseWriter, spend func()) {
				w.Header().Set("Content-Type", kind)
				w.Header().Set("Tollgate-Balance", "changed")
				for _, word := range []string{"one ", "two ", "three"} {
					spend()
					w.Write([]byte(word))
					http.NewResponseController(w).Flush()
					<-goOn
				}
			})
			res, err := b.Client.Get(b.Site.URL + "/spend")
			if err != nil {
				t.Fatal(err)
			}
			goOn <- true
			if got := b.Get("/").Text; !strings.HasSuffix(got, " fresh") {
				t.Errorf("meanwhile: %q", got)
			}
			goOn <- true
			goOn <- true
			if text, err := io.ReadAll(res.Body); string(text) != "one two three" || err != nil {
				t.Errorf("the answer: %q, %v", text, err)
			}
			gatewaytest.Eventually(t, "the end is known", func() bool { return b.Get("/").Text == "747.00 fresh" })
		})
	}
}

func TestWebSocketOutdatesTheBalanceAtItsEnd(t *testing.T) {
	_, b := spendingSite(t, func(w http.ResponseWriter, spend func()) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTollgate-Balance: changed\r\n\r\n")
		rw.Flush()
		rw.ReadByte()
		spend()
	})
	conn := dial(t, b.Site)
	fmt.Fprintf(conn, "GET /spend HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n\r\n", b.CookieLine())
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Tollgate-Balance") != "" {
		t.Fatal(res, err)
	}
	if got := b.Get("/").Text; got != "750.00 fresh" {
		t.Errorf("meanwhile: %q", got)
	}
	conn.Write([]byte{0})
	io.Copy(io.Discard, conn) // up to the upstream's end
	conn.Close()
	gatewaytest.Eventually(t, "the end is known", func() bool { return b.Get("/").Text == "749.00 fresh" })
}

func TestBalanceTrailerIsRemovedAndForcesARead(t *testing.T) {
	for name, trailer := range map[string]string{
		"announced":     "Tollgate-Balance",
		"not announced": http.TrailerPrefix + "Tollgate-Balance",
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				s, b := spendingSite(t, func(w http.ResponseWriter, spend func()) {
					if trailer == "Tollgate-Balance" {
						w.Header().Set("Trailer", "X-Sum, tollgate-balance")
					} else {
						w.Header().Set("Trailer", "X-Sum")
					}
					w.Write([]byte("one "))
					http.NewResponseController(w).Flush()
					spend()
					w.Header().Set(trailer, "changed")
					w.Header().Set("X-Sum", "1")
				})
				if protocol == "HTTP/2" {
					second := httptest.NewUnstartedServer(s.Upstream.Config.Handler)
					second.Config.Protocols = new(http.Protocols)
					second.Config.Protocols.SetUnencryptedHTTP2(true)
					second.Start()
					t.Cleanup(second.Close)
					s.Caddyfile = strings.Replace(s.Caddyfile, "reverse_proxy "+s.Upstream.URL, "reverse_proxy h2c"+strings.TrimPrefix(second.URL, "http"), 1)
					s.Load()
				}
				front := httptest.NewUnstartedServer(s.Server)
				front.EnableHTTP2 = protocol == "HTTP/2"
				front.StartTLS()
				t.Cleanup(front.Close)
				req, _ := http.NewRequest(http.MethodGet, front.URL+"/spend", nil)
				req.Header.Set("Cookie", strings.TrimPrefix(b.CookieLine(), "Cookie: "))
				res, err := front.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				text, err := io.ReadAll(res.Body)
				_, ours := res.Trailer["Tollgate-Balance"]
				if string(text) != "one " || err != nil || ours || res.Trailer.Get("X-Sum") != "1" || res.Proto[:6] != protocol[:6] {
					t.Errorf("got %q, %v, trailers %v over %s", text, err, res.Trailer, res.Proto)
				}
				if got := b.Get("/").Text; got != "749.00 fresh" {
					t.Errorf("afterwards: %q", got)
				}
			})
		}
	}
}

func TestAnUpstreamThatFailsStillDeliversTheNewCookie(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Upstream.Close()
	s.Clock.Advance(over)
	a := b.Get("/")
	if a.StatusCode != http.StatusBadGateway || a.Header.Get("Set-Cookie") == "" {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}
