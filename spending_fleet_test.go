package tollgate_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// TestThreeGatewaysPassWhatCanBePaid: the user has 750.00, which is enough for 17 requests
// of 44.00.
func TestThreeGatewaysPassWhatCanBePaid(t *testing.T) {
	server := redistest.Start(t)
	f := gatewaytest.NewFleet(t, 3, "store redis {\naddress "+server.Address()+"\n}\n}\nrequire /stream/events {\nbalance 44.00\nreserve", time.Minute)
	b := f.NewBrowser().SignIn()
	statuses, running := make(chan int, 300), make(chan *http.Response, 300)
	start := make(chan struct{})
	for i := range 300 {
		c, r := b.Copy(), f.Replicas[i%len(f.Replicas)]
		go func() {
			<-start
			res, err := c.Client.Get(r.At("/stream/events"))
			if err != nil {
				statuses <- 0
				return
			}
			running <- res
			statuses <- res.StatusCode
		}()
	}
	close(start)
	counted := map[int]int{}
	for range 300 {
		counted[<-statuses]++
	}
	if counted[http.StatusOK] != 17 || counted[http.StatusPaymentRequired] != 283 {
		t.Errorf("got %v, want 17 times 200 and 283 times 402", counted)
	}
	if n := f.Upstream.Streams.Load(); n != 17 {
		t.Errorf("%d requests run at the upstream, want 17", n)
	}
	close(running)
	for res := range running {
		res.Body.Close()
	}
}

// TestVaryingCostsNeverOverdraw: calls cost between 0.01 and 10.00, and hold 10.00. The
// provider takes the money of each call, and has 60.00.
func TestVaryingCostsNeverOverdraw(t *testing.T) {
	var f *gatewaytest.Fleet
	var overdrawn, calls atomic.Int64
	f = spendingFleet(t, 2, shortLease, inRedis(redistest.Start(t)), "require /paid {\nbalance 10.00\nreserve\n}", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/paid" {
			costs(w, r)
			return
		}
		cents := []int64{1, 1000, 3, 999, 50, 1000, 7, 400}[calls.Add(1)%8]
		if f.Provider.Spend(12345, cents) != nil {
			overdrawn.Add(1)
		}
		w.Header().Set("Tollgate-Cost", fmt.Sprintf("%d.%02d", cents/100, cents%100))
	})
	f.Provider.UpdateUser(12345, func(u *simulator.User) { u.BalanceCents = 6000 })
	b := f.NewBrowser().SignIn()
	var callers sync.WaitGroup
	for i := range 12 {
		c, r := b.Copy(), f.Replicas[i%2]
		callers.Go(func() {
			for status := http.StatusOK; status == http.StatusOK; {
				status = atOther(c, r, "/paid").StatusCode
			}
		})
	}
	callers.Wait()
	for b.Get("/paid").StatusCode == http.StatusOK { // alone: nothing runs that holds money
	}
	u, _ := f.Provider.User(12345)
	if overdrawn.Load() != 0 || u.BalanceCents < 0 || u.BalanceCents >= 1000 {
		t.Errorf("%d of %d calls could not be paid, want 0; %d cents are left, want 0 to 999", overdrawn.Load(), calls.Load(), u.BalanceCents)
	}
}

// TestTwentyCallsAtTwoGatewaysWithMoneyForThree: the provider takes 250.00 for each call.
func TestTwentyCallsAtTwoGatewaysWithMoneyForThree(t *testing.T) {
	var f *gatewaytest.Fleet
	f = spendingFleet(t, 2, shortLease, inRedis(redistest.Start(t)), "require /paid {\nbalance 250.00\nreserve\n}", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/paid" {
			if err := f.Provider.Spend(12345, 25000); err != nil {
				t.Errorf("a call reached the upstream that cannot be paid: %v", err)
			}
		}
		w.Header().Set("Tollgate-Cost", "250.00")
		costs(w, r)
	})
	b := f.NewBrowser().SignIn()
	if got := callAtOnce(f, b, 20, "/paid"); got[http.StatusOK] != 3 || got[http.StatusPaymentRequired] != 17 {
		t.Errorf("twenty calls with money for three: got %v", got)
	}
	if u, _ := f.Provider.User(12345); u.BalanceCents != 0 {
		t.Errorf("%d cents are left, want none", u.BalanceCents)
	}
}
