package tollgate_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const oftenRechecked = "\nstream_recheck 1s\n"

// webSocket opens a WebSocket through the gateway, and says hello.
func webSocket(b *gatewaytest.Browser, target string) *websocket.Conn {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.T.Context(), gatewaytest.Patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, target, &websocket.DialOptions{HTTPClient: b.Client})
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(func() { conn.CloseNow() })
	wantEcho(b.T, conn)
	return conn
}

func wantEcho(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatalf("the WebSocket is closed: %v", err)
	}
	if _, message, err := conn.Read(ctx); err != nil || string(message) != "hello" {
		t.Fatalf("through the WebSocket: %q, %v", message, err)
	}
}

// wantClosed waits for the close frame of a WebSocket. It does not wait as long as the usual
// stream_recheck.
func wantClosed(t *testing.T, conn *websocket.Conn, code int, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	defer cancel()
	_, _, err := conn.Read(ctx)
	if closed, ok := errors.AsType[websocket.CloseError](err); !ok || int(closed.Code) != code || closed.Reason != reason {
		t.Errorf("the WebSocket ends with %v, want %d %q", err, code, reason)
	}
}

// eventStream is an event stream whose first event has come.
type eventStream struct {
	t     *testing.T
	ended chan error
}

func eventStreamOf(b *gatewaytest.Browser, target string) *eventStream {
	b.T.Helper()
	return openEvents(b.T, b.Client, target)
}

func openEvents(t *testing.T, client *http.Client, target string, headers ...string) *eventStream {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	body := bufio.NewReader(res.Body)
	if line, err := body.ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
		t.Fatalf("the first event: %d %q, %v", res.StatusCode, line, err)
	}
	e := &eventStream{t: t, ended: make(chan error, 1)}
	go func() { // ends with the body
		_, err := io.Copy(io.Discard, body)
		e.ended <- err
	}()
	return e
}

// wantCut waits for the end of the stream, which must not look like a regular one. It does not
// wait as long as the usual stream_recheck.
func (e *eventStream) wantCut() {
	e.t.Helper()
	select {
	case err := <-e.ended:
		if err == nil {
			e.t.Error("the event stream ended without an error, want a broken connection")
		}
	case <-time.After(gatewaytest.Patience):
		e.t.Errorf("the event stream is open after %v", gatewaytest.Patience)
	}
}

func (e *eventStream) wantOpen() {
	e.t.Helper()
	select {
	case err := <-e.ended:
		e.t.Errorf("the event stream has ended: %v", err)
	default:
	}
}

// wantNothingLeft waits until neither the upstream nor the registry holds a stream.
func wantNothingLeft(s *gatewaytest.Site) {
	s.T.Helper()
	gatewaytest.Eventually(s.T, "the upstream's side is closed, too", func() bool { return s.Upstream.Streams.Load() == 0 })
	wantStreams(s, 0)
}

func TestStreamsEndWithALogoutAtOnce(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	logs := observe(s)
	b, other := s.NewBrowser().SignIn(), s.NewBrowser().SignIn()
	ws, events := webSocket(b, s.URL+"/stream/ws"), eventStreamOf(b, s.URL+"/stream/events?key=value")
	otherWS, otherEvents := webSocket(other, s.URL+"/stream/ws"), eventStreamOf(other, s.URL+"/stream/events")

	b.Send("POST", "/oauth/logout", nil)
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
	ended := logs.FilterMessage("streams ended").All()
	if len(ended) != 1 || ended[0].ContextMap()["streams"] != int64(2) {
		t.Errorf("the log says %v", ended)
	}
	wantEcho(t, otherWS)
	otherEvents.wantOpen()
	if a := b.Get("/stream/events"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the next try: %d", a.StatusCode)
	}

	other.Send("POST", "/oauth/logout", nil)
	wantClosed(t, otherWS, 4401, "session ended")
	otherEvents.wantCut()
	wantNothingLeft(s)
}

func TestAnEventStreamOfAMalformedTypeEndsWithALogout(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"Header":{"X-User-Id":["`+gatewaytest.UserID+`"]}}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset")
		fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}})
	b := s.NewBrowser().SignIn()
	events := eventStreamOf(b, s.URL+"/events")
	b.Send("POST", "/oauth/logout", nil)
	events.wantCut()
}

func TestAnEventStreamOverHTTP2EndsWithALogout(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	front := httptest.NewUnstartedServer(s.Server)
	front.EnableHTTP2 = true
	front.StartTLS()
	defer front.Close()
	b := s.NewBrowser().SignIn()
	events := openEvents(t, front.Client(), front.URL+"/stream/events", b.CookieLine())
	b.Send("POST", "/oauth/logout", nil)
	events.wantCut()
	wantNothingLeft(s)
}

// TestTheFirstEventOfAStreamPassesAtOnce: the upstream sends nothing more, so a first event
// that is buffered anywhere never comes.
func TestTheFirstEventOfAStreamPassesAtOnce(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	eventStreamOf(s.NewBrowser().SignIn(), s.URL+"/stream/events").wantOpen()
}

func TestAbandonedStreamsLeakNothing(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	before := runtime.NumGoroutine()
	for range 20 {
		webSocket(b, s.URL+"/stream/ws").Close(websocket.StatusNormalClosure, "")
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/stream/events", nil)
		if _, err := b.Client.Do(req); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	wantNothingLeft(s)
	b.CloseIdleConnections()
	gatewaytest.Eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+5 })
}

func TestAWebSocketEndsBetweenTwoFrames(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for range 50 {
		b := s.NewBrowser()
		b.Visit(b.Authorize(""))
		conn := dial(t, s)
		fmt.Fprintf(conn, "GET /stream/flood HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n\r\n", b.CookieLine())
		reader := bufio.NewReader(conn)
		if res, err := http.ReadResponse(reader, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(res, err)
		}
		done := make(chan error, 1)
		go func() { done <- readFlood(reader, conn) }()
		b.Send("POST", "/oauth/logout", nil)
		conn.SetReadDeadline(time.Now().Add(gatewaytest.Patience))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	wantNothingLeft(s)
}

// readFlood reads whole frames up to the close frame, answers it, and reads up to the
// connection's end.
func readFlood(r *bufio.Reader, answer io.Writer) error {
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(r, head); err != nil {
			return fmt.Errorf("no close frame: %w", err)
		}
		length := uint64(head[1])
		switch length {
		case 126:
			var long uint16
			binary.Read(r, binary.BigEndian, &long)
			length = uint64(long)
		case 127:
			binary.Read(r, binary.BigEndian, &length)
		}
		if length > 1<<20 {
			return fmt.Errorf("a frame of %d bytes", length)
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(r, payload); err != nil {
			return fmt.Errorf("a frame is cut: %w", err)
		}
		if head[0] == 0x88 {
			if code := binary.BigEndian.Uint16(payload); code != 4401 {
				return fmt.Errorf("the close code is %d", code)
			}
			if _, err := answer.Write(clientCloseFrame); err != nil {
				return fmt.Errorf("answering the close frame: %w", err)
			}
			if rest, _ := io.ReadAll(r); len(rest) > 0 {
				return fmt.Errorf("%d bytes after the close frame", len(rest))
			}
			return nil
		}
		for _, b := range payload {
			if b != byte(length) {
				return fmt.Errorf("a frame of %d bytes holds others", length)
			}
		}
	}
}

func TestAWebSocketWhoseFrameNeverEndsIsCut(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x82\x7d1234")
		rw.Flush()
		io.Copy(io.Discard, conn)
	}})
	b := s.NewBrowser()
	b.Follow("/")
	conn := dial(t, s)
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n\r\n", b.CookieLine())
	reader := bufio.NewReader(conn)
	if _, err := http.ReadResponse(reader, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(reader, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	b.Send("POST", "/oauth/logout", nil)
	conn.SetReadDeadline(time.Now().Add(10 * closeTimeout))
	if rest, err := io.ReadAll(reader); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in the middle of a frame the client gets %q, %v", rest, err)
	}
}

func TestStreamsEndWithALogoutOnAnotherGateway(t *testing.T) {
	forEachSharedPlace(t, func(t *testing.T, session string) {
		f := gatewaytest.NewFleet(t, 2, session, time.Minute)
		b := f.NewBrowser().SignIn()
		r := f.Replicas[1]
		ws, events := webSocket(b, r.At("/stream/ws")), eventStreamOf(b, r.At("/stream/events"))
		b.Send("POST", f.Replicas[0].At("/oauth/logout"), nil)
		wantClosed(t, ws, 4401, "session ended")
		events.wantCut()
	})
}

func TestStreamsEndWithTheLifetimeAndOutliveTheTokens(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked + "session {\nlifetime 5h\nidle_timeout 10m\n}"})
	b := s.NewBrowser().SignIn()
	ws := webSocket(b, s.URL+"/stream/ws")
	s.Clock.Advance(over) // of the access token; the idle timeout, too, is long over
	gatewaytest.Eventually(t, "the tokens are renewed", func() bool { return s.Refreshes() == 1 })
	wantEcho(t, ws)
	s.Clock.Advance(5 * time.Hour)
	wantClosed(t, ws, 4401, "session ended")
}

func TestOpenStreamCountsAsUseOfTheSession(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: oftenRechecked + "session {\nstore storage\nidle_timeout 10m\n}"})
	b := s.NewBrowser().SignIn()
	ws := webSocket(b, s.URL+"/stream/ws")
	for range 3 {
		before := sessionOf(s, b).LastSeen
		s.Clock.Advance(6 * time.Minute)
		gatewaytest.Eventually(t, "the use is written down", func() bool { return sessionOf(s, b).LastSeen.After(before) })
	}
	wantEcho(t, ws)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("a request after 18 minutes: %d", a.StatusCode)
	}
}

func TestStreamsEndWhenTheProviderEndsTheSession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked})
	b := s.NewBrowser().SignIn()
	ws, events := webSocket(b, s.URL+"/stream/ws"), eventStreamOf(b, s.URL+"/stream/events")
	s.Provider.RevokeUser(12345)
	s.Clock.Advance(over)
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
}

func TestFailingStoreEndsNoStream(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{InTollgate: oftenRechecked})
	b := s.NewBrowser().SignIn()
	ws, events := webSocket(b, s.URL+"/stream/ws"), eventStreamOf(b, s.URL+"/stream/events")
	storage.Broken.Store(true)
	before := storage.Loads.Load()
	gatewaytest.Eventually(t, "the session was looked at twice", func() bool { return storage.Loads.Load() >= before+2 })
	wantEcho(t, ws)
	events.wantOpen()
	storage.Broken.Store(false)
	b.Send("POST", "/oauth/logout", nil)
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
}

// TestStreamsOfOneSessionShareOneStoreRead also shows that they leave nothing.
func TestStreamsOfOneSessionShareOneStoreRead(t *testing.T) {
	const sessions, streamsEach, periods = 5, 200, 2
	s, kind, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "\nstream_recheck 1s\n"})
	browsers := make([]*gatewaytest.Browser, sessions)
	for i := range browsers {
		browsers[i] = s.NewBrowser().SignIn()
	}
	before := runtime.NumGoroutine()
	conns := make([][]net.Conn, sessions)
	for i, b := range browsers {
		for range streamsEach {
			conn := dial(t, s)
			fmt.Fprintf(conn, "GET /stream/events HTTP/1.1\r\nHost: gateway\r\n%s\r\n\r\n", b.CookieLine())
			conns[i] = append(conns[i], conn)
		}
	}
	gatewaytest.Eventually(t, "all streams are open", func() bool { return s.Upstream.Streams.Load() == sessions*streamsEach })
	wantStreams(s, sessions*streamsEach)
	time.Sleep(2 * storageReadAge) // what the requests have read is forgotten

	loads, began := kind.Loads.Load(), time.Now()
	gatewaytest.Eventually(t, "each session was read in each period", func() bool { return kind.Loads.Load()-loads >= sessions*periods })
	n, most := kind.Loads.Load()-loads, sessions*(int64(time.Since(began)/relay.CheckInterval(time.Second, session.ID{0xff}))+1)
	if n > most {
		t.Errorf("%d reads in %d periods of %d sessions, want %d at most", n, periods, sessions, most)
	}
	if got := s.Upstream.Streams.Load(); got != sessions*streamsEach {
		t.Errorf("%d streams are open, want %d", got, sessions*streamsEach)
	}
	for i, b := range browsers {
		b.Send("POST", "/oauth/logout", nil)
		for _, conn := range conns[i] {
			conn.SetReadDeadline(time.Now().Add(gatewaytest.Patience))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("browser %d: a stream is still open %v after the logout", i, gatewaytest.Patience)
			}
			conn.Close()
		}
		b.CloseIdleConnections()
	}
	wantNothingLeft(s)
	gatewaytest.Eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+5 })
}

func TestStreamsSurviveAReloadAndStillEndWithTheirSession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked})
	s.Caddyfile = strings.Replace(s.Caddyfile, "reverse_proxy "+s.Upstream.URL, "reverse_proxy "+s.Upstream.URL+" {\nstream_close_delay 1h\n}", 1)
	s.Load()
	b := s.NewBrowser().SignIn()
	ws, events := webSocket(b, s.URL+"/stream/ws"), eventStreamOf(b, s.URL+"/stream/events")
	s.Load()
	wantEcho(t, ws)
	events.wantOpen()
	s.Clock.Advance(over)
	gatewaytest.Eventually(t, "the tokens are renewed under the new configuration", func() bool { return s.Refreshes() == 1 })
	b.Send("POST", "/oauth/logout", nil)
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
	wantNothingLeft(s)
}

func TestStreamsEndWithTheGateway(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	ws, events := webSocket(b, s.URL+"/stream/ws"), eventStreamOf(b, s.URL+"/stream/events")
	s.Handlers[0].Cleanup()
	s.Handlers = nil
	wantClosed(t, ws, 1001, "going away")
	events.wantCut()
}

func TestStreamsOfARefusedUserEnd(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked})
	b := s.NewBrowser().SignIn()
	ws := webSocket(b, s.URL+"/stream/ws")
	s.Provider.UpdateUser(12345, func(u *simulator.User) { u.Status = 2 })
	s.Clock.Advance(2 * time.Minute) // what is known is re-read
	wantClosed(t, ws, 4403, "refused")
}

func TestStreamEndsIfTheBalanceIsUsedUp(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked + "require /stream/ws {\nbalance 10\n}\nrequire /stream/dear {\nbalance 300\n}"})
	b := s.NewBrowser().SignIn()
	cheap, dear, dearToo := webSocket(b, s.URL+"/stream/ws"), webSocket(b, s.URL+"/stream/dear"), webSocket(b, s.URL+"/stream/dear")
	events := eventStreamOf(b, s.URL+"/stream/events")
	reads := s.Provider.Count(simulator.UserInfo)
	s.Provider.Spend(12345, 50000) // of plenty, so that nothing but the look reads it
	s.Clock.Advance(2 * time.Second)
	wantClosed(t, dear, 4402, "insufficient balance")
	wantClosed(t, dearToo, 4402, "insufficient balance")
	if n := s.Provider.Count(simulator.UserInfo) - reads; n != 1 {
		t.Errorf("%d reads of the balance", n)
	}
	wantEcho(t, cheap)
	events.wantOpen()
	if a := b.Get("/stream/dear"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("the next try: %d", a.StatusCode)
	}
	s.Provider.Spend(12345, 24500)
	s.Clock.Advance(2 * time.Second)
	wantClosed(t, cheap, 4402, "insufficient balance")
	events.wantOpen()
	b.Send("POST", "/oauth/logout", nil)
	wantNothingLeft(s)
}

func TestEventStreamEndsIfTheBalanceIsUsedUp(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked + "require {\nbalance 300\n}"})
	b := s.NewBrowser().SignIn()
	events := eventStreamOf(b, s.URL+"/stream/events")
	s.Provider.Spend(12345, 50000)
	s.Clock.Advance(2 * time.Second)
	events.wantCut()
	wantNothingLeft(s)
}

func TestUnknownBalanceEndsNoStream(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{InTollgate: oftenRechecked + "require {\nbalance 300\n}"})
	b := s.NewBrowser().SignIn()
	ws := webSocket(b, s.URL+"/stream/ws")
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.Clock.Advance(20 * time.Minute)
	before := storage.Loads.Load()
	gatewaytest.Eventually(t, "the session was looked at twice", func() bool { return storage.Loads.Load() >= before+2 })
	wantEcho(t, ws)
	if a := b.Get("/"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a request: %d", a.StatusCode)
	}
}

func TestBalanceHeaderBringsTheStreamCheckForward(t *testing.T) {
	var s *gatewaytest.Site
	s = gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "require {\nbalance 300\n}",
		Handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/spend" {
				s.Provider.Spend(12345, 50000)
				w.Header().Set("Tollgate-Balance", "changed")
			}
			s.Upstream.ServeStream(w, r)
		},
	})
	b := s.NewBrowser()
	b.Follow("/")
	ws := webSocket(b, s.URL+"/stream/ws")
	b.Get("/spend")
	wantClosed(t, ws, 4402, "insufficient balance")
}

func TestReloadEndsStreamsThatTheNewConfigurationRefuses(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked})
	s.Caddyfile = strings.Replace(s.Caddyfile, "reverse_proxy "+s.Upstream.URL, "reverse_proxy "+s.Upstream.URL+" {\nstream_close_delay 1h\n}", 1)
	s.Load()
	b := s.NewBrowser().SignIn()
	refused, passing := webSocket(b, s.URL+"/stream/dear"), webSocket(b, s.URL+"/stream/ws")
	s.Caddyfile = strings.Replace(s.Caddyfile, "stream_recheck 1s", "stream_recheck 1s\nrequire /stream/dear {\nuser 7\n}", 1)
	s.Load()
	wantClosed(t, refused, 4403, "refused")
	wantEcho(t, passing)
}

func TestStreamOnOptionalPathEndsWithItsSession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked + "optional /stream/*\nsession {\nlifetime 1h\n}"})
	anonymous := webSocket(s.NewBrowser(), s.URL+"/stream/ws")
	b := s.NewBrowser().SignIn()
	ws, events := webSocket(b, s.URL+"/stream/ws"), eventStreamOf(b, s.URL+"/stream/events")
	s.Clock.Advance(2 * time.Hour)
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
	wantEcho(t, anonymous)
	wantEcho(t, webSocket(b, s.URL+"/stream/ws"))
}

func TestAnEventStreamToAClientThatDoesNotReadEnds(t *testing.T) {
	open := make(chan bool, 1)
	s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/events" {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		event := []byte("data: " + strings.Repeat("x", 64<<10) + "\n\n")
		for err := error(nil); err == nil; _, err = w.Write(event) {
		}
		open <- false
	}})
	inside := countInside(s)
	b := s.NewBrowser()
	b.Follow("/")
	conn := dial(t, s)
	fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: gateway\r\n%s\r\n\r\n", b.CookieLine())
	wantStreams(s, 1)
	time.Sleep(300 * time.Millisecond) // the buffers fill up, and writing hangs
	b.Send("POST", "/oauth/logout", nil)
	select {
	case <-open:
	case <-time.After(gatewaytest.Patience):
		t.Errorf("the upstream is still writing %v after the logout", gatewaytest.Patience)
	}
	gatewaytest.Eventually(t, "the gateway writes no more", func() bool { return inside.Load() == 0 })
}

// countInside counts the requests that are in the gateway from now on.
func countInside(s *gatewaytest.Site) *atomic.Int64 {
	inside, gateway := &atomic.Int64{}, *s.Server.Handler.Load()
	var counting http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.Add(1)
		defer inside.Add(-1)
		gateway.ServeHTTP(w, r)
	})
	s.Server.Handler.Store(&counting)
	return inside
}

// wantStreams waits until the gateway watches so many streams.
func wantStreams(s *gatewaytest.Site, want int) {
	s.T.Helper()
	streams := s.Handlers[0].Internals().Streams
	gatewaytest.Eventually(s.T, fmt.Sprintf("the gateway watches %d streams", want), func() bool { return streams.Len() == want })
}

func TestAWebSocketToAClientThatDoesNotReadEnds(t *testing.T) {
	for name, end := range map[string]func(s *gatewaytest.Site, b *gatewaytest.Browser, client net.Conn){
		"with the session": func(_ *gatewaytest.Site, b *gatewaytest.Browser, _ net.Conn) { b.Send("POST", "/oauth/logout", nil) },
		"with the upstream": func(s *gatewaytest.Site, _ *gatewaytest.Browser, client net.Conn) {
			s.Upstream.Streams.Store(-1)
			gatewaytest.Eventually(s.T, "what the client sends is refused", func() bool {
				_, err := client.Write([]byte{0x81, 0x80, 0, 0, 0, 0})
				return err != nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var u *gatewaytest.Upstream
			s := gatewaytest.New(t, gatewaytest.Options{Handler: func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") == "" {
					return
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				rw.Flush()
				frame := append([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, make([]byte, 1<<16)...)
				for err == nil && u.Streams.Load() >= 0 {
					conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
					if _, err = conn.Write(frame); errors.Is(err, os.ErrDeadlineExceeded) {
						err = nil
					}
				}
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}})
			u = s.Upstream
			inside := countInside(s)
			b := s.NewBrowser()
			b.Follow("/")
			conn := dial(t, s)
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n\r\n", b.CookieLine())
			wantStreams(s, 1)
			time.Sleep(500 * time.Millisecond) // the buffers fill up, and writing hangs
			end(s, b, conn)
			wantStreams(s, 0)
			gatewaytest.Eventually(t, "the gateway writes no more", func() bool { return inside.Load() == 0 })
			conn.Close()
		})
	}
}
