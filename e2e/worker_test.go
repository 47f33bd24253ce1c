package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// workers pass navigations on, in the ways in which applications write that.
var workers = []struct{ name, fetch string }{
	{"as they are", "fetch(event.request)"},
	{"with options", "fetch(event.request, { signal: AbortSignal.timeout(60000) })"},
	{"loaded in advance", "event.preloadResponse.then(answer => answer ?? fetch(event.request))"},
}

// workerPolicy is a Content-Security-Policy that lets a page load a worker. It leaves out Trusted
// Types, which would refuse a plain string as the worker's URL.
const workerPolicy = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src data:"

// newWorkerSite is a site with a service worker for all of its pages. The worker
// first tells the upstream which navigation it passes on: a browser may stop an idle worker,
// and starts it again without its variables. The map has the paths.
func newWorkerSite(t *testing.T, in browser, fetch string, options siteOptions) (*site, *tab, *sync.Map) {
	t.Helper()
	options.browser, options.policy = in, workerPolicy
	preload := "undefined"
	if strings.Contains(fetch, "preloadResponse") { // without it each navigation would be sent twice
		preload = "r.navigationPreload?.enable()"
	}
	options.pages = map[string]string{
		"/page-install": document(`<script src="/page-install.js"></script>`, "Installing"),
		"/page-install.js": `navigator.serviceWorker.register("/page-worker", { scope: "/" });
			navigator.serviceWorker.ready.then(r => ` + preload + `).then(() => { window.installed = true });`,
		"/account": document("", "The account"),
		"/dear":    document("", "Dear"),
		"/closed":  document("", "Closed"),
	}
	passed := new(sync.Map)
	options.other = func(w http.ResponseWriter, r *http.Request) bool {
		if path, found := strings.CutPrefix(r.URL.Path, "/page-passed"); found {
			passed.Store(path, true)
			return true
		}
		if r.URL.Path != "/page-worker" {
			return false
		}
		w.Header().Set("Content-Type", "text/javascript")
		w.Header().Set("Service-Worker-Allowed", "/")
		fmt.Fprintf(w, `const passOn = event => %s;
			addEventListener("install", () => skipWaiting());
			addEventListener("activate", event => event.waitUntil(clients.claim()));
			addEventListener("fetch", event => {
				if (event.request.mode !== "navigate") return;
				const noted = fetch("/page-passed" + new URL(event.request.url).pathname);
				event.respondWith(noted.then(() => passOn(event)));
			});`, fetch)
		return true
	}
	s := newSite(t, options)
	w := s.newPerson().open("/page-install")
	w.eventually("window.installed && navigator.serviceWorker.controller")
	return s, w, passed
}

// wantPassed checks that the worker has passed navigations on, or the test does not test.
func wantPassed(t *testing.T, passed *sync.Map, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, found := passed.Load(path); !found {
			t.Errorf("the worker has not passed on the navigation to %s, so the test proves nothing", path)
		}
	}
}

func TestASignInPassesThroughAServiceWorker(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		for _, worker := range workers {
			t.Run(worker.name, func(t *testing.T) {
				s, w, passed := newWorkerSite(t, in, worker.fetch, siteOptions{})
				w.goTo("/account?a=1")
				w.signIn(gatewaytest.UserID)
				w.shows("The account")
				if got, want := evaluate[string](w, "location.href"), s.url+"/account?a=1"; got != want {
					t.Errorf("came back to %s, want %s", got, want)
				}
				wantPassed(t, passed, "/account", "/oauth/callback")
			})
		}
	})
}

// The balance is too low, the user is another one, and the provider does not answer.
func TestRefusalsThroughAServiceWorkerArePages(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s, w, passed := newWorkerSite(t, in, workers[0].fetch, siteOptions{
			provider:   simulator.Options{AccessLifetime: 2 * time.Second},
			inTollgate: "require /dear {\nbalance 1000.00\n}\nrequire /closed {\nuser 1\n}",
		})
		w.person.tolerate("the server responded with a status of")
		w.goTo("/account")
		w.signIn(gatewaytest.UserID)
		w.shows("The account")
		w.refuses("/dear")
		w.refuses("/closed")
		s.provider.SetFault(simulator.Refresh, simulator.Fault{Status: http.StatusServiceUnavailable})
		w.refuses("/account")
		wantPassed(t, passed, "/dear", "/closed", "/account")
	})
}

// refuses goes to an address until a page of the gateway refuses it.
func (w *tab) refuses(address string) {
	w.t.Helper()
	for deadline := time.Now().Add(stepTimeout); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		w.goTo(address)
		switch got := evaluate[string](w, `document.contentType + " " + document.querySelectorAll("main h1").length`); got {
		case "text/html 1":
			return
		case "text/html 0": // not yet
		default:
			w.t.Fatalf("%s: a person sees %s\n%s", address, got, w.describe())
		}
	}
	w.t.Fatalf("%s: no page of ours appeared within %v\n%s", address, stepTimeout, w.describe())
}
