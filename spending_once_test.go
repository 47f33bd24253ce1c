package tollgate_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// holdsOne is a site whose requests for /paid hold 1.00 of 10.00 and count in a budget.
const holdsOne = "require /paid /paid/* {\nbalance 1.00\nreserve\nbudget 100.00 per month\n}\nbalance {\nmax_age 1h\n}\n"

// newPaidSite is a site with a user who has 10.00. The provider does not answer any more, so
// that a hold which waits for a reading can be seen.
func newPaidSite(t *testing.T, options gatewaytest.Options, change func(caddyfile string) string) (*gatewaytest.Site, *gatewaytest.Browser) {
	t.Helper()
	options.InTollgate += holdsOne
	s := gatewaytest.New(t, options)
	if change != nil {
		s.Caddyfile = change(s.Caddyfile)
		s.Load()
	}
	b := s.NewBrowser().SignIn()
	setBalance(s, "10.00")
	b.Get("/oauth/refresh")
	wantMoney(t, b, "10.00", "0.00")
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
	return s, b
}

// panicking is a handler that panics, in front of the upstream.
type panicking struct{}

func (panicking) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.tollgate_tests_panic", New: func() caddy.Module { return new(panicking) }}
}

func (panicking) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	switch r.Header.Get("X-Panic") {
	case "before":
		panic("the handler panics")
	case "after":
		err := next.ServeHTTP(w, r)
		panic(fmt.Sprint("the handler panics: ", err))
	}
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(panicking{})
	httpcaddyfile.RegisterHandlerDirective("tollgate_tests_panic", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		return panicking{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("tollgate_tests_panic", httpcaddyfile.Before, "reverse_proxy")
}

func TestPanicSettlesOnce(t *testing.T) {
	s, b := newPaidSite(t, gatewaytest.Options{Before: "tollgate_tests_panic", Handler: costs}, nil)
	for _, c := range []struct{ when, available, spent string }{
		{"before", "9.00", "1.00"}, // nothing said: the hold counts
		{"after", "8.75", "1.25"},
		{"", "8.50", "1.50"},
	} {
		req, _ := http.NewRequest(http.MethodPost, s.URL+"/paid?cost=0.25", nil)
		req.Header.Set("X-Panic", c.when)
		res, err := b.Client.Do(req)
		if (err == nil) != (c.when == "") && c.when == "before" {
			t.Errorf("%q: the response does not end: %v", c.when, err)
		}
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		wantMoney(t, b, c.available, c.spent)
	}
}

// TestReloadDuringACallSettlesOnce: the old configuration settles in the ledger of the new one.
func TestReloadDuringACallSettlesOnce(t *testing.T) {
	u := newTill()
	s, b := newPaidSite(t, gatewaytest.Options{Handler: u.ServeHTTP}, nil)
	for i, change := range []func(){
		func() { s.Load() },
		func() { s.Caddyfile = strings.Replace(s.Caddyfile, "balance 1.00", "balance 2.00", 1); s.Load() },
		func() { s.Load(); s.Load() },
	} {
		status := make(chan int, 1)
		go func() { status <- b.Copy().Get("/paid").StatusCode }()
		gatewaytest.Eventually(t, "the request reaches the upstream", func() bool { return u.reached.Load() == int64(i+1) })
		change()
		u.answer("Tollgate-Cost: 0.25")
		if got := <-status; got != http.StatusOK {
			t.Fatalf("got %d, want 200", got)
		}
		wantMoney(t, b, fmt.Sprintf("%.2f", 10-0.25*float64(i+1)), fmt.Sprintf("%.2f", 0.25*float64(i+1)))
	}
}

// TestRepeatedRequestSettlesOnce: the upstream refuses the access token, and both responses
// say a cost.
func TestRepeatedRequestSettlesOnce(t *testing.T) {
	up := &picky{answer: costs}
	refusing := func(w http.ResponseWriter, r *http.Request) {
		if _, revoked := up.revoked.Load(r.Header.Get("Authorization")); revoked {
			w.Header().Set("Trailer", "Tollgate-Cost")
			w.Header().Set("Tollgate-Cost", "5.00")
			w.WriteHeader(http.StatusUnauthorized)
			w.Header().Set("Tollgate-Cost", "5.00")
			return
		}
		costs(w, r)
	}
	s, b := newPaidSite(t, gatewaytest.Options{InTollgate: "pass_access_token\n", Handler: refusing}, nil)
	up.revoke(b)
	refreshes := s.Refreshes()
	if a := b.Send(http.MethodPost, "/paid?cost=0.25", strings.NewReader("body")); a.StatusCode != http.StatusOK || s.Refreshes() != refreshes+1 {
		t.Fatalf("got %d after %d refreshes, want 200 after one", a.StatusCode, s.Refreshes()-refreshes)
	}
	wantMoney(t, b, "9.75", "0.25")
}

// TestUpstreamThatCrashesDuringACallKeepsTheHold: the request is repeated on a connection that
// is refused, and it was worked on before.
func TestUpstreamThatCrashesDuringACallKeepsTheHold(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() { // ends when the second request has come
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		requests := bufio.NewReader(conn)
		http.ReadRequest(requests)
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTollgate-Cost: 0\r\n\r\n")
		http.ReadRequest(requests)
		listener.Close()
		conn.(*net.TCPConn).SetLinger(0) // as the end of a process does
		conn.Close()
	}()
	_, b := newPaidSite(t, gatewaytest.Options{}, func(caddyfile string) string {
		return strings.Replace(caddyfile, "reverse_proxy", "reverse_proxy /paid "+listener.Addr().String()+"\nreverse_proxy", 1)
	})
	if a := b.Get("/paid"); a.StatusCode != http.StatusOK {
		t.Fatalf("the first request: got %d, want 200", a.StatusCode)
	}
	if a := b.Get("/paid"); a.StatusCode != http.StatusBadGateway {
		t.Fatalf("the second request: got %d, want 502", a.StatusCode)
	}
	wantMoney(t, b, "9.00", "1.00")
}

// overHTTP2 is a client that speaks HTTP/2 to a site.
func overHTTP2(t *testing.T, s *gatewaytest.Site) (client *http.Client, url string) {
	t.Helper()
	front := httptest.NewUnstartedServer(s.Server)
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(front.Close)
	return front.Client(), front.URL
}

// paidRequest is a request of the browser for another address of the site.
func paidRequest(ctx context.Context, b *gatewaytest.Browser, method, target string) *http.Request {
	req, _ := http.NewRequestWithContext(ctx, method, target, nil)
	_, cookies, _ := strings.Cut(b.CookieLine(), ": ")
	req.Header.Set("Cookie", cookies)
	return req
}

// TestClientThatAbortsSettlesOnce: over HTTP/2 and HTTP/3 the client resets the stream, over
// HTTP/1.1 it closes the connection.
func TestClientThatAbortsSettlesOnce(t *testing.T) {
	reached := make(chan struct{}, 1)
	aborted := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/paid/") {
			if cost := r.URL.Query().Get("cost"); cost != "" {
				w.Header().Set("Tollgate-Cost", cost)
			}
			if r.URL.Path == "/paid/half" {
				io.WriteString(w, "half")
				http.NewResponseController(w).Flush()
			} else {
				reached <- struct{}{}
			}
			<-r.Context().Done()
			return
		}
		costs(w, r)
	}
	s, b := newPaidSite(t, gatewaytest.Options{Handler: aborted}, nil)
	second, at := overHTTP2(t, s)
	front := inHTTP3(t, s)
	third := &http3.Transport{TLSClientConfig: http3Client(nil)}
	t.Cleanup(func() { third.Close() })
	available, spent := 10.0, 0.0
	for _, c := range []struct {
		target      string
		costs, held float64
	}{{"/paid/silent", 0, 1}, {"/paid/half", 0, 1}, {"/paid/half?cost=0.25", 0.25, 0}} {
		for _, way := range []struct {
			client *http.Client
			url    string
		}{{&http.Client{Transport: &http.Transport{}}, s.URL}, {second, at}, {&http.Client{Transport: third}, "https://" + front.address}} {
			ctx, abort := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() {
				res, err := way.client.Do(paidRequest(ctx, b, http.MethodPost, way.url+c.target))
				if err == nil {
					io.ReadFull(res.Body, make([]byte, len("half")))
					reached <- struct{}{}
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				left <- err
			}()
			<-reached
			abort()
			if err := <-left; err == nil {
				t.Fatal("the client read the whole response, want an error after the abort")
			}
			available -= c.costs + c.held
			spent += c.costs + c.held
			wantMoney(t, b, fmt.Sprintf("%.2f", available), fmt.Sprintf("%.2f", spent))
		}
	}
}

// TestCostIsReadFromHeadersAndTrailers also checks that the client sees no Tollgate-Cost. If the
// upstream sends two of them, neither counts, and the user is charged what the request held.
func TestCostIsReadFromHeadersAndTrailers(t *testing.T) {
	said := func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if query.Has("announced") {
			w.Header().Set("Trailer", "Tollgate-Cost, X-Other")
		}
		if header := query.Get("header"); header != "" {
			w.Header().Set("Tollgate-Cost", header)
		}
		io.WriteString(w, `{"Header":{"X-User-Id":["12345"]}}`)
		http.NewResponseController(w).Flush()
		if header := query.Get("announced"); header != "" {
			w.Header().Set("Tollgate-Cost", header)
			w.Header().Set("X-Other", "1")
		}
		if header := query.Get("trailer"); header != "" {
			w.Header().Set(http.TrailerPrefix+"Tollgate-Cost", header)
		}
	}
	for _, c := range []struct{ query, available, spent string }{
		{"announced=0.25", "9.75", "0.25"},
		{"trailer=0.25", "9.75", "0.25"},
		{"header=0.25", "9.75", "0.25"},
		{"header=0.25&trailer=0.25", "9.00", "1.00"},
		{"header=0.25&announced=0.25", "9.00", "1.00"},
		{"announced=0.25&trailer=0.25", "9.00", "1.00"},
		{"trailer=-0.25", "9.00", "1.00"},
		{"announced=1e3", "9.00", "1.00"},
		{"trailer=99999999999999999999", "9.00", "1.00"},
	} {
		s, b := newPaidSite(t, gatewaytest.Options{Handler: said}, nil)
		second, at := overHTTP2(t, s)
		for _, way := range []struct {
			client *http.Client
			url    string
		}{{http.DefaultClient, s.URL}, {second, at}} {
			res, err := way.client.Do(paidRequest(t.Context(), b, http.MethodGet, way.url+"/paid?"+c.query))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusOK || res.Header["Tollgate-Cost"] != nil || len(res.Trailer["Tollgate-Cost"]) > 0 || strings.Contains(fmt.Sprint(res.Header["Trailer"], res.Trailer), "Tollgate") {
				t.Errorf("%s over %s: got %d, the header %v, the trailer %v", c.query, res.Proto, res.StatusCode, res.Header, res.Trailer)
			}
			if way.client == http.DefaultClient {
				wantMoney(t, b, c.available, c.spent)
			}
		}
		switch c.available {
		case "9.75":
			wantMoney(t, b, "9.50", "0.50")
		default:
			wantMoney(t, b, "8.00", "2.00")
		}
	}
}

// TestErrorRouteSaysNoCost: an error behind tollgate leads to an upstream, which says a cost.
func TestErrorRouteSaysNoCost(t *testing.T) {
	said := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Tollgate-Cost")
		w.Header().Set("Tollgate-Cost", "0.25")
		w.Header().Set("Tollgate-Balance", "changed")
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Add("Set-Cookie", "tollgate=evil; Path=/")
		w.Header().Add("Set-Cookie", "other=1")
		fmt.Fprintf(w, `{"Header":{"X-User-Id":[%q]}}`, r.Header.Get("X-User-Id"))
		http.NewResponseController(w).Flush()
		w.Header().Set("Tollgate-Cost", "0.25")
		w.Header().Set(http.TrailerPrefix+"Tollgate-Balance", "changed")
	}
	s, b := newPaidSite(t, gatewaytest.Options{}, nil)
	s.Upstream.Answer(said)
	down := httptest.NewServer(nil)
	down.Close()
	s.Caddyfile = strings.Replace(s.Caddyfile, "\treverse_proxy", "\treverse_proxy /paid/down "+down.URL+"\nerror /paid/500 500\nhandle_errors {\nreverse_proxy "+s.Upstream.URL+"\n}\n\treverse_proxy", 1)
	s.Load()
	setBalance(s, "10.00") // the provider answers
	for _, path := range []string{"/paid/down", "/paid/500"} {
		s.Clock.Advance(over) // the session cookie is renewed
		a := b.Get(path)
		if a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
			t.Errorf("%s: the error route sees no user: %d %s", path, a.StatusCode, a.Text)
		}
		if lines := fmt.Sprint(a.Header, a.Trailer); strings.Contains(lines, "Tollgate-") {
			t.Errorf("%s: the client sees %s", path, lines)
		}
		cookies := fmt.Sprint(a.Header["Set-Cookie"])
		if strings.Count(cookies, "tollgate=") != 1 || strings.Contains(cookies, "evil") || !strings.Contains(cookies, "other=1") || a.Header.Get("Cache-Control") != "private, no-store" || len(a.Header["Cache-Control"]) != 1 {
			t.Errorf("%s: got Set-Cookie %s and Cache-Control %q", path, cookies, a.Header["Cache-Control"])
		}
		wantMoney(t, b, "10.00", "0.00")
	}
}

// TestClientThatAbortsGetsNoCallForNothing: the upstream notices nothing, and takes the money
// only when its work is done. The user has enough for three calls, and the balance can be read.
func TestClientThatAbortsGetsNoCallForNothing(t *testing.T) {
	reached, finish := make(chan struct{}, 10), make(chan struct{})
	slow := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/paid" {
			reached <- struct{}{}
			<-finish
			return
		}
		costs(w, r)
	}
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 1.00\nreserve\nbudget 4.50 per month\n}", Handler: slow})
	t.Cleanup(func() { close(finish) })
	ledgers := s.Handlers[0].Internals().Ledgers
	b := s.NewBrowser().SignIn()
	setBalance(s, "3.50")
	wantMoney(t, b, "3.50", "0.00")
	abort := func() {
		t.Helper()
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		left := make(chan error, 1)
		go func() {
			_, err := http.DefaultClient.Do(paidRequest(ctx, b, http.MethodPost, s.URL+"/paid"))
			left <- err
		}()
		select {
		case <-reached:
		case err := <-left:
			t.Fatalf("the request does not reach the upstream: %v", err)
		}
		leave()
		<-left
	}
	// A reading after the pause dissolves the hold, which counts in the budget.
	usual := ledgers.CutPause
	ledgers.CutPause = time.Millisecond
	abort()
	wantMoney(t, b, "3.50", "1.00")
	ledgers.CutPause = usual
	// The upstream takes the money of the first, and goes on with two more.
	setBalance(s, "2.50")
	for range 2 {
		b.Get("/oauth/refresh")
		abort()
	}
	wantMoney(t, b, "0.50", "3.00")
	refused := func(code string) {
		t.Helper()
		if a := b.Get("/paid"); a.StatusCode != http.StatusPaymentRequired || a.JSON(t)["error"] != code {
			t.Errorf("got %d %s, want 402 %s", a.StatusCode, a.Text, code)
		}
	}
	refused("insufficient_balance")
	setBalance(s, "100.00")
	b.Get("/oauth/refresh")
	abort()
	wantMoney(t, b, "97.00", "4.00")
	refused("budget_exceeded")
}
