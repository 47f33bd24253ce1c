package tollgate

import (
	"net/http"
	"testing"
)

func TestAPersonSignsInAndTheUpstreamKnowsWhoItIs(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser()

	toStart := b.visit("/page?x=1")
	if toStart.StatusCode != http.StatusFound || toStart.location() != "/oauth/start?return_to=%2Fpage%3Fx%3D1" {
		t.Fatalf("an unknown visitor got %d to %q", toStart.StatusCode, toStart.location())
	}
	a := b.follow("/page?x=1")
	seen := a.seen(t)
	if seen.URI != "/page?x=1" {
		t.Errorf("the sign-in came back to %q", seen.URI)
	}
	for name, want := range map[string]string{
		"X-User-Id": "12345", "X-User-Name": "user123", "X-User-Email": "user@example.com",
		"X-User-Balance": "750.00", "X-User-Balance-State": "fresh", "X-User-Balance-Age": "0",
	} {
		if got := seen.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if cookie := seen.Header.Get("Cookie"); cookie != "" {
		t.Errorf("the upstream saw cookies: %q", cookie)
	}
}
