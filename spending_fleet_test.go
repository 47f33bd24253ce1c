package tollgate_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
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
