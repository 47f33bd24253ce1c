package e2e

import (
	"net/http"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// framedPage sends the gateway's response to a script in a frame to the page around it.
var framedPage = map[string]string{
	"/page":         document(`<script src="/page.js"></script>`, "A page"),
	"/page-around":  document(`<script src="/page-told.js"></script>`, `<iframe src="/page"></iframe>`),
	"/page-told.js": `onmessage = e => { window.told = e.data }`,
	"/page.js":      `fetch("/oauth/userinfo?optional=1").then(answer => parent.postMessage(answer.status, "*"))`,
}

// A browser that partitions cookies gives a frame only the cookies that were set in frames
// below the same site. A sign-in does not happen in a frame, so the frame does not see it.
func TestFrameOnAnotherSiteDoesNotSeeTheSignIn(t *testing.T) {
	for _, words := range []string{"same_site none", "same_site none\npartitioned on"} {
		s := newSite(t, siteOptions{https: true, pages: framedPage, policy: strictPolicy + "; frame-src 'self'", inTollgate: "session {\n" + words + "\n}"})
		s.startOutside(`<script>onmessage = e => { window.told = e.data }</script><iframe src="` + s.url + `/page"></iframe>`)
		w := s.newPerson().open("about:blank")
		w.goTo("/oauth/start?return_to=/page-around")
		w.signIn(gatewaytest.UserID)
		w.eventually("window.told")
		if got := evaluate[int](w, "told"); got != http.StatusOK {
			t.Errorf("%q: in a frame of its own site it is told %d, want %d", words, got, http.StatusOK)
		}
		w.goTo(s.outsideURL)
		w.eventually("window.told")
		if got := evaluate[int](w, "told"); got != http.StatusNoContent {
			t.Errorf("%q: in a frame of another site it is told %d, want %d", words, got, http.StatusNoContent)
		}
	}
}
