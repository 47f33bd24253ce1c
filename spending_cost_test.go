package tollgate_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// TestPathWithoutReserveAllocatesNothingMore: a rule with a hold costs requests for other paths
// nothing.
func TestPathWithoutReserveAllocatesNothingMore(t *testing.T) {
	allocations := func(rule, path string) float64 {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: rule + "\nbalance {\nmax_age 1h\n}"})
		b := s.NewBrowser().SignIn()
		s.Caddyfile = strings.Replace(s.Caddyfile, "reverse_proxy "+s.Upstream.URL, "header /paid/* Tollgate-Cost 0\nrespond 204", 1)
		s.Load()
		_, cookies, _ := strings.Cut(b.CookieLine(), ": ")
		ask := func() {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Cookie", cookies)
			w := httptest.NewRecorder()
			s.Server.ServeHTTP(w, r)
			if w.Code != http.StatusNoContent {
				t.Fatalf("%s: got %d, want 204", path, w.Code)
			}
		}
		ask()
		least := testing.AllocsPerRun(200, ask)
		for range 9 { // what runs in the background allocates, too, so the least is the request's own
			least = min(least, testing.AllocsPerRun(50, ask))
		}
		return least
	}
	const rule = "require /paid/* {\nbalance 0.10\nreserve\nbudget 1000.00 per day\n}"
	without, elsewhere, paid := allocations("", "/free/page"), allocations(rule, "/free/page"), allocations(rule, "/paid/page")
	if elsewhere > without {
		t.Errorf("got %v allocations with a rule for other paths, want %v as without it", elsewhere, without)
	}
	if paid <= without {
		t.Errorf("got %v allocations with a hold, and %v without: the test shows nothing", paid, without)
	}
	t.Logf("%v allocations without a hold, %v with one", without, paid)
}
