package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// TestMain ends the one browser that the tests share.
func TestMain(m *testing.M) {
	status := m.Run()
	endChromium()
	os.Exit(status)
}

var (
	endChromium   = func() {}
	startChromium = sync.OnceValues(func() (context.Context, error) {
		folder, err := os.MkdirTemp("", "tollgate-chromium-")
		if err != nil {
			return nil, err
		}
		options := append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.UserDataDir(filepath.Join(folder, "profile")),
			chromedp.Env("TMPDIR="+folder),
			chromedp.WSURLReadTimeout(2*time.Minute),
			chromedp.NoSandbox, // which needs rights that containers do not give
			chromedp.DisableGPU,
			chromedp.WindowSize(1200, 900),
		)
		allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
		browser, endBrowser := chromedp.NewContext(allocator)
		endChromium = func() {
			_ = chromedp.Cancel(browser) // with time to end its processes
			endBrowser()
			endAllocator()
			os.RemoveAll(folder)
		}
		return browser, chromedp.Run(browser)
	})
)

// pageServer shows pages to a browser as the gateway would.
type pageServer struct {
	*httptest.Server
	mu        sync.Mutex
	documents map[string]Document
	requests  []string // "METHOD path" of what was no page
}

func newPageServer(t *testing.T) *pageServer {
	s := &pageServer{documents: map[string]Document{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		document, ok := s.documents[r.URL.Path]
		if !ok {
			s.requests = append(s.requests, r.Method+" "+r.URL.Path)
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<link rel="icon" href="data:,"><p id="elsewhere">elsewhere`)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", document.Policy)
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Write(document.Body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *pageServer) elsewhere() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// tab is a tab of a real browser. When the test ends, nothing may have been blocked
// on the pages that it has shown, and nothing loaded.
type tab struct {
	t      *testing.T
	ctx    context.Context
	server *pageServer
	opened int
	// scriptless: the browser runs no script of a page.
	scriptless bool

	mu         sync.Mutex
	complaints []string
}

func newTab(t *testing.T) *tab {
	t.Helper()
	browser, err := startChromium()
	if err != nil {
		t.Fatalf("starting Chromium: %v; on Debian the package is chromium", err)
	}
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx, server: newPageServer(t)}
	chromedp.ListenTarget(ctx, b.listen)
	b.run(network.Enable(), log.Enable(), emulation.SetFocusEmulationEnabled(true))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, complaint := range b.complaints {
			t.Error(complaint)
		}
	})
	return b
}

func (b *tab) listen(event any) {
	complaint := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Source == log.SourceSecurity || e.Entry.Source == log.SourceViolation {
			complaint = "the browser complains: " + e.Entry.Text
		}
	case *runtime.EventExceptionThrown:
		complaint = "a script failed: " + e.ExceptionDetails.Error()
	case *network.EventRequestWillBeSent:
		if e.Type != network.ResourceTypeDocument && !strings.HasPrefix(e.Request.URL, "data:") {
			complaint = "the page loads " + e.Request.URL
		}
	}
	if complaint != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.complaints = append(b.complaints, complaint)
	}
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// show opens a page, and waits until it says what stays.
func (b *tab) show(p *Pages, page Page, d Data) {
	b.t.Helper()
	document, err := p.Render(page, d)
	if err != nil {
		b.t.Fatal(err)
	}
	b.opened++
	path := fmt.Sprintf("/%s/%d", page, b.opened)
	b.server.mu.Lock()
	b.server.documents[path] = document
	b.server.mu.Unlock()
	b.run(chromedp.Navigate(b.server.URL + path))
	if page == Popup && !b.scriptless {
		b.eval(`document.getElementById("login").removeAttribute("aria-busy")`, nil) // as its script does, a moment later
	}
}

// eval gives the value of an expression, or of what it promises.
func (b *tab) eval(expression string, value any) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, value, func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
		return p.WithAwaitPromise(true)
	}))
}

// look sets how wide the window is, and what its user has asked the system for.
func (b *tab) look(width int64, features map[string]string) {
	b.t.Helper()
	var media []*emulation.MediaFeature
	for name, value := range features {
		media = append(media, &emulation.MediaFeature{Name: name, Value: value})
	}
	b.run(emulation.SetDeviceMetricsOverride(width, 800, 1, false), emulation.SetEmulatedMedia().WithFeatures(media))
}

func dark() map[string]string  { return map[string]string{"prefers-color-scheme": "dark"} }
func light() map[string]string { return map[string]string{"prefers-color-scheme": "light"} }

// shownPage is a page in one of its states.
type shownPage struct {
	name string
	page Page
	data Data
}

// shownPages are all pages, in each of the states in which they have other elements.
func shownPages() []shownPage {
	var shown []shownPage
	add := func(name string, page Page, change func(*Data)) {
		d := fullData()
		d.Popup.Origin = "https://app.example.com"
		if change != nil {
			change(&d)
		}
		shown = append(shown, shownPage{name, page, d})
	}
	for _, page := range allPages {
		add(string(page), page, nil)
	}
	add("popup that failed", Popup, func(d *Data) { d.Popup.OK, d.Popup.Error = false, "access_denied" })
	add("error of the setup", Error, func(d *Data) { d.Cause = "invalid_client" })
	add("unknown error", Error, func(d *Data) { d.Cause = "" })
	add("unknown balance", Balance, func(d *Data) { d.Balance = "" })
	add("no top-up", Balance, func(d *Data) { d.TopupURL = "" })
	add("budget without a time", Budget, func(d *Data) { d.ResetsAt, d.RetryAfter = time.Time{}, 0 })
	add("unavailable, not known who", Unavailable, func(d *Data) { d.SignedIn, d.User = false, "" })
	add("logout, not known who", Logout, func(d *Data) { d.SignedIn, d.User = false, "" })
	add("refused sign-in", Forbidden, func(d *Data) { d.Cause, d.SignedIn, d.User = "inactive_user", false, "" })
	add("unknown balance, no top-up", Balance, func(d *Data) { d.Balance, d.TopupURL = "", "" })
	add("nowhere to go back", Balance, func(d *Data) { d.HomeURL = "" })
	add("no brand", Logout, func(d *Data) { d.Brand = "" })
	return shown
}
