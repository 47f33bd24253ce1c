package tollgate_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// shortLease is a lease after which a test can wait for the end of holds.
const shortLease = 2 * time.Second

// spendingFleet is n gateways on one store, in front of an upstream that charges, with the
// given rules.
func spendingFleet(t *testing.T, n int, lease time.Duration, store, rules string, upstream http.HandlerFunc) *gatewaytest.Fleet {
	t.Helper()
	f := gatewaytest.NewFleet(t, n, store+"\n}\n"+strings.TrimSuffix(strings.TrimSpace(rules), "}"), lease)
	f.Upstream.Answer(upstream)
	return f
}

func inRedis(server *redistest.Server) string {
	return "store redis {\naddress " + server.Address() + "\n}"
}

// atOther sends a request to one replica.
func atOther(b *gatewaytest.Browser, r *gatewaytest.Replica, path string) *gatewaytest.Answer {
	b.T.Helper()
	return b.Get(r.At(path))
}

// callAtOnce sends n calls at the same time, over all replicas in turn, and counts the
// statuses.
func callAtOnce(f *gatewaytest.Fleet, b *gatewaytest.Browser, n int, path string) map[int]int {
	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for i := range n {
		c, r := b.Copy(), f.Replicas[i%len(f.Replicas)]
		all.Go(func() {
			status := 0
			if res, err := c.Client.Get(r.At(path)); err == nil {
				res.Body.Close()
				status = res.StatusCode
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	all.Wait()
	return statuses
}

// TestKilledGatewayFreesItsHolds: the user has 750.00, which is enough for three requests.
func TestKilledGatewayFreesItsHolds(t *testing.T) {
	u := newTill()
	f := spendingFleet(t, 2, shortLease, inRedis(redistest.Start(t)), "require /paid {\nbalance 250.00\nreserve\n}", u.ServeHTTP)
	b := f.NewBrowser().SignIn()
	dies, lives := f.Replicas[0], f.Replicas[1]
	for range 3 {
		c := b.Copy()
		go func() {
			if res, err := c.Client.Get(dies.At("/paid")); err == nil {
				res.Body.Close()
			}
		}()
	}
	gatewaytest.Eventually(t, "three requests reach the upstream", func() bool { return u.reached.Load() == 3 })
	if a := atOther(b, lives, "/paid"); a.StatusCode != http.StatusPaymentRequired {
		t.Fatalf("the fourth request: got %d, want 402", a.StatusCode)
	}
	killed := time.Now()
	f.Terminate(dies, syscall.SIGKILL)
	if a := atOther(b, lives, "/paid"); a.StatusCode != http.StatusPaymentRequired && time.Since(killed) < shortLease/2 {
		t.Errorf("a moment after the gateway was killed: got %d, want 402", a.StatusCode)
	}
	passed := make(chan int, 3)
	for range 3 {
		c := b.Copy()
		go func() {
			for time.Since(killed) < gatewaytest.Patience {
				if a := atOther(c, lives, "/paid"); a.StatusCode != http.StatusPaymentRequired {
					passed <- a.StatusCode
					return
				}
			}
			passed <- http.StatusPaymentRequired
		}()
	}
	gatewaytest.Eventually(t, "three more requests reach the upstream", func() bool { return u.reached.Load() == 6 })
	if took := time.Since(killed); took >= spending.DefaultLease {
		t.Errorf("the holds were free after %v, want about %v", took, shortLease)
	}
	if a := atOther(b, lives, "/paid"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a request too many: got %d, want 402", a.StatusCode)
	}
	for range 3 {
		u.answer("Tollgate-Cost: 1")
	}
	for range 3 {
		if status := <-passed; status != http.StatusOK {
			t.Errorf("a request after the lease: got %d, want 200", status)
		}
	}
}

// TestRedisOutagePassesNothingUnpaid: a request runs while Redis is killed, and its cost is
// booked once when Redis is back.
func TestRedisOutagePassesNothingUnpaid(t *testing.T) {
	u := newTill()
	server := redistest.Start(t)
	f := spendingFleet(t, 2, shortLease, inRedis(server), "balance {\non_unknown allow\n}\nrequire /paid {\nbalance 1.00\nreserve\nbudget 100.00 per month\n}", u.ServeHTTP)
	b, other := f.NewBrowser().SignIn(), f.NewBrowser()
	other.Follow(other.Visit("/oauth/start").Location() + "&login_hint=maria")
	before := fmt.Sprint(other.Cookies())
	running := make(chan int, 1)
	go func() { running <- atOther(b.Copy(), f.Replicas[0], "/paid").StatusCode }()
	gatewaytest.Eventually(t, "the request reaches the upstream", func() bool { return u.reached.Load() == 1 })

	server.Kill()
	if got := callAtOnce(f, b, 20, "/paid"); got[http.StatusServiceUnavailable] != 20 {
		t.Errorf("twenty calls without Redis: got %v, want 503", got)
	}
	for _, a := range []*gatewaytest.Answer{b.Get("/paid"), b.Visit("/paid")} {
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("without Redis: got %d, Retry-After %q, Set-Cookie %q", a.StatusCode, a.Header.Get("Retry-After"), a.Header.Get("Set-Cookie"))
		}
	}
	if n := u.reached.Load(); n != 1 {
		t.Errorf("%d requests reached the upstream without a hold", n-1)
	}
	u.answer("Tollgate-Cost: 0.25")
	if status := <-running; status != http.StatusOK {
		t.Errorf("the running request: got %d, want 200", status)
	}
	if a := other.Get("/oauth/userinfo"); a.StatusCode != http.StatusOK && a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("another user without Redis: got %d", a.StatusCode)
	}

	server.Restart()
	gatewaytest.Eventually(t, "Redis is back", func() bool { return b.Get("/oauth/userinfo").StatusCode == http.StatusOK })
	wantMoney(t, b, "749.75", "0.25") // until the next reading
	go func() { running <- atOther(b.Copy(), f.Replicas[1], "/paid").StatusCode }()
	u.answer("Tollgate-Cost: 0.50")
	if status := <-running; status != http.StatusOK {
		t.Errorf("after the outage: got %d, want 200", status)
	}
	wantMoney(t, b, "750.00", "0.75")
	if a := other.Get("/oauth/userinfo"); a.StatusCode != http.StatusOK || a.JSON(t)["username"] != "maria" || fmt.Sprint(other.Cookies()) != before {
		t.Errorf("another user after the outage: %d %s", a.StatusCode, a.Text)
	}
}

// TestReservationThatCannotBeWrittenPassesNothing: Redis answers, and takes no writes.
func TestReservationThatCannotBeWrittenPassesNothing(t *testing.T) {
	for name, c := range map[string]struct{ refuse, allow []string }{
		"no replicas":          {[]string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
		"no memory":            {[]string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
		"a read-only replica":  {[]string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
		"a forbidden command":  {[]string{"ACL", "SETUSER", "default", "-hset"}, []string{"ACL", "SETUSER", "default", "+hset"}},
		"scripts are disabled": {[]string{"ACL", "SETUSER", "default", "-eval", "-evalsha"}, []string{"ACL", "SETUSER", "default", "+eval", "+evalsha"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			s := gatewaytest.New(t, gatewaytest.Options{
				InTollgate: "session {\n" + inRedis(server) + "\n}\nbalance {\non_unknown allow\n}\nrequire /paid {\nbalance 1.00\nreserve\n}\nrequire /budget {\nbudget 1.00 per day\n}",
				Handler:    costs,
			})
			b := s.NewBrowser().SignIn()
			reached := s.Upstream.Requests.Load()
			server.Must(c.refuse...)
			for _, path := range []string{"/paid", "/budget"} {
				if a := b.Get(path); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.JSON(t)["error"] != "unavailable" {
					t.Errorf("%s: got %d %s, want 503", path, a.StatusCode, a.Text)
				}
				if a := b.Visit(path); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
					t.Errorf("a person at %s: got %d, want 503", path, a.StatusCode)
				}
			}
			if n := s.Upstream.Requests.Load() - reached; n != 0 {
				t.Errorf("%d requests reached the upstream without a hold", n)
			}
			if a := b.Get("/"); a.StatusCode != http.StatusOK {
				t.Errorf("elsewhere: got %d, want 200", a.StatusCode)
			}
			server.Must(c.allow...)
			gatewaytest.Eventually(t, "reservations are written again", func() bool { return b.Get("/paid?cost=0").StatusCode == http.StatusOK })
		})
	}
}

// TestTwoGatewaysOnOneStoragePassWhatCanBePaid: the user has 750.00, which is enough for
// three requests.
func TestTwoGatewaysOnOneStoragePassWhatCanBePaid(t *testing.T) {
	u := newTill()
	f := spendingFleet(t, 2, shortLease, "store storage", "require /paid {\nbalance 250.00\nreserve\n}", u.ServeHTTP)
	b := f.NewBrowser().SignIn()
	counted := make(chan map[int]int, 1)
	go func() { counted <- callAtOnce(f, b, 20, "/paid") }()
	gatewaytest.Eventually(t, "three requests reach the upstream", func() bool { return u.reached.Load() == 3 })
	for range 3 {
		u.answers <- func(w http.ResponseWriter) {
			f.Provider.Spend(12345, 25000)
			w.Header().Set("Tollgate-Cost", "250.00")
		}
	}
	if got := <-counted; got[http.StatusOK] != 3 || got[http.StatusPaymentRequired] != 17 {
		t.Errorf("twenty calls with money for three: got %v", got)
	}
	if n := u.reached.Load(); n != 3 {
		t.Errorf("%d requests reached the upstream, want 3", n)
	}
}
