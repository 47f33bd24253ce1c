package tollgate_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
)

// meter is an upstream with long and short calls. A stream ends when it is told to, and says
// in a trailer what it cost.
type meter struct{ end chan string }

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/paid/events":
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Trailer", "Tollgate-Cost")
		fmt.Fprint(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		w.Header().Set("Tollgate-Cost", <-m.end)
	case "/paid/ws":
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		<-m.end
		conn.Close(websocket.StatusNormalClosure, "done")
	default:
		costs(w, r)
	}
}

// TestLongStreamsHoldTheirAmountBesideShortCalls: the user has 750.00, which is enough for
// three requests. An event stream and a WebSocket run for longer than a lease.
func TestLongStreamsHoldTheirAmountBesideShortCalls(t *testing.T) {
	const lease = 2 * shortLease // a busy machine renews it late
	for name, store := range map[string]string{"redis": inRedis(redistest.Start(t)), "storage": "store storage"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &meter{end: make(chan string)}
			f := spendingFleet(t, 2, lease, store, "require /paid/* {\nbalance 250.00\nreserve\nbudget 5000.00 per month\n}", m.ServeHTTP)
			b := f.NewBrowser().SignIn()
			began := time.Now()
			events, err := b.Client.Get(f.Replicas[0].At("/paid/events"))
			if err != nil {
				t.Fatal(err)
			}
			defer events.Body.Close()
			body := bufio.NewReader(events.Body)
			if line, err := body.ReadString('\n'); err != nil || line != "data: 1\n" {
				t.Fatalf("the event stream: %d %q %v", events.StatusCode, line, err)
			}
			ws, _, err := websocket.Dial(t.Context(), f.Replicas[0].At("/paid/ws"), &websocket.DialOptions{HTTPClient: b.Client})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()

			shorts := 0
			for time.Since(began) < lease+lease/2 {
				for _, r := range f.Replicas {
					if a := atOther(b, r, "/paid/short?cost=0"); a.StatusCode != http.StatusOK {
						t.Fatalf("a short call %v after the begin: got %d %s, want 200", time.Since(began), a.StatusCode, a.Text)
					}
					shorts++
				}
				if a := b.Get("/oauth/userinfo").JSON(t); a["available"] != "250.00" {
					t.Fatalf("%v after the begin %v is available, want 250.00", time.Since(began), a["available"])
				}
			}
			f.Provider.Spend(12345, 12000)
			m.end <- "120.00"
			if rest, err := io.ReadAll(body); err != nil || strings.TrimSpace(string(rest)) != "" || len(events.Trailer["Tollgate-Cost"]) > 0 {
				t.Errorf("the end of the event stream: %q %v %v", rest, err, events.Trailer)
			}
			// The WebSocket still holds 250.00, of the balance and of the budget.
			wantMoney(t, b, "380.00", "370.00")
			go func() { m.end <- "" }()
			if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("the end of the WebSocket: %v", err)
			}
			wantMoney(t, b, "380.00", "370.00") // the upstream may go on with what was asked
			if shorts == 0 {
				t.Error("no short call passed")
			}
		})
	}
}

// TestCostCountsInTheWindowInWhichTheRequestEnds: what runs holds its amount in the window in which
// it runs, and its cost counts in the window in which it ends.
func TestCostCountsInTheWindowInWhichTheRequestEnds(t *testing.T) {
	u := newTill()
	s := gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "require /paid {\nreserve 1.00\nbudget 2.00 per hour\nbudget 20.00 per day\nbudget 30.00 per month\n}", Handler: u.ServeHTTP,
	})
	s.Clock.Advance(untilTomorrow(s) + 59*time.Minute)
	b := s.NewBrowser().SignIn()
	spent := func() string {
		t.Helper()
		var texts []string
		for _, budget := range b.Get("/oauth/userinfo").JSON(t)["budgets"].([]any) {
			texts = append(texts, fmt.Sprint(budget.(map[string]any)["spent"]))
		}
		return strings.Join(texts, " ")
	}
	status := make(chan int, 1)
	call := func() { status <- b.Copy().Get("/paid").StatusCode }
	end := func(cost string) {
		t.Helper()
		u.answer("Tollgate-Cost: " + cost)
		if got := <-status; got != http.StatusOK {
			t.Fatalf("got %d, want 200", got)
		}
	}
	go call()
	end("0.75")
	go call()
	gatewaytest.Eventually(t, "the long request reaches the upstream", func() bool { return u.reached.Load() == 2 })
	if got := spent(); got != "1.75 1.75 1.75" {
		t.Errorf("while the request runs: got %s spent, want 1.75 of each budget", got)
	}
	s.Clock.Advance(2 * time.Minute)
	if got := spent(); got != "1.00 1.75 1.75" {
		t.Errorf("in the next hour: got %s spent, want the hold in the hour, and all of the day", got)
	}
	end("0.50")
	gatewaytest.Eventually(t, "the cost counts in the hour in which the request ended", func() bool { return spent() == "0.50 1.25 1.25" })
}

// TestBudgetsSurviveARestart: with a store on a server.
func TestBudgetsSurviveARestart(t *testing.T) {
	for name, store := range map[string]string{"redis": inRedis(redistest.Start(t)), "storage": "store storage", "cookie": "store cookie"} {
		t.Run(name, func(t *testing.T) {
			s := gatewaytest.New(t, gatewaytest.Options{
				InTollgate: "session {\n" + store + "\n}\nrequire \"/paid and more\" /ü/* {\nbudget 1.00 per month\nbudget 0.80 per day\n}", Handler: costs,
			})
			b := s.NewBrowser().SignIn()
			for _, path := range []string{"/paid%20and%20more?cost=0.50", "/%C3%BC/x?cost=0.40"} {
				if a := b.Get(path); a.StatusCode != http.StatusOK {
					t.Fatalf("%s: got %d %s, want 200", path, a.StatusCode, a.Text)
				}
			}
			s.Restart()
			a := b.Get("/paid%20and%20more")
			if name == "cookie" {
				if a.StatusCode != http.StatusOK {
					t.Errorf("got %d, want 200 with budgets that have begun again", a.StatusCode)
				}
				return
			}
			if problem := a.JSON(t); a.StatusCode != http.StatusPaymentRequired || problem["per"] != "day" || problem["spent"] != "0.90" {
				t.Errorf("got %d %s, want 402 by the day's budget", a.StatusCode, a.Text)
			}
		})
	}
}
