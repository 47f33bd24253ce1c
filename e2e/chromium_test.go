package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// chromium is the one Chromium of all tests.
var chromium = &chromiumProcess{}

// chromiumProcess is a Chromium that starts when it is first needed.
type chromiumProcess struct {
	once   sync.Once
	folder string
	ctx    context.Context // of chromedp, for the whole browser
	stop   func()
	err    error
}

func (p *chromiumProcess) context() (context.Context, error) {
	p.once.Do(func() { p.err = p.start() })
	return p.ctx, p.err
}

// start runs Chromium with an empty profile. The profile and all that Chromium leaves are in a
// folder that close removes. Popups without a click are blocked, as for people.
func (p *chromiumProcess) start() error {
	path, err := findChromium()
	if err != nil {
		return err
	}
	if p.folder, err = os.MkdirTemp("", "tollgate-chromium-"); err != nil {
		return err
	}
	allocator, freeAllocator := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(filepath.Join(p.folder, "profile")),
		chromedp.Env("TMPDIR="+p.folder),
		chromedp.WSURLReadTimeout(stepTimeout),
		chromedp.Headless,
		chromedp.NoSandbox, // tests run as root
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("screen-info", "{1600x1200}"), // one that a popup of 500x600 fits on
	)
	ctx, closeBrowser := chromedp.NewContext(allocator)
	p.ctx = ctx
	p.stop = func() {
		_ = chromedp.Cancel(ctx) // with time to end its processes
		closeBrowser()
		freeAllocator()
	}
	if err := chromedp.Run(ctx); err != nil {
		p.stop()
		p.stop = nil
		return fmt.Errorf("starting %s: %w", path, err)
	}
	return nil
}

func (p *chromiumProcess) close() {
	if p.stop != nil {
		p.stop()
	}
	if p.folder != "" {
		os.RemoveAll(p.folder)
	}
}

var errNoChromium = errors.New("the browser tests need Chromium, as chromium, chromium-browser or google-chrome in the PATH; on Debian: apt-get install chromium")

func findChromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoChromium
}

// chromiumProfile implements profile.
type chromiumProfile struct {
	person  *person
	ctx     context.Context // of chromedp, for the whole Chromium
	browser context.Context // for commands to it
	id      cdp.BrowserContextID
	isOpen  bool // has a window
	detach  []context.CancelFunc
}

// newProfile implements browser.
func (p *chromiumProcess) newProfile(person *person) (profile, error) {
	ctx, err := p.context()
	if err != nil {
		return nil, err
	}
	person.isWatched = true
	c := &chromiumProfile{person: person, ctx: ctx, browser: cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser)}
	c.id, err = target.CreateBrowserContext().Do(c.browser)
	return c, err
}

// close implements profile.
func (c *chromiumProfile) close() error {
	for _, detach := range slices.Backward(c.detach) {
		detach()
	}
	return target.DisposeBrowserContext(c.id).Do(c.browser)
}

// open implements profile.
func (c *chromiumProfile) open() (window, error) {
	id, err := target.CreateTarget("about:blank").WithBrowserContextID(c.id).WithNewWindow(!c.isOpen).Do(c.browser)
	if err != nil {
		return nil, err
	}
	c.isOpen = true
	return c.watch(id)
}

// opened implements profile.
func (c *chromiumProfile) opened(from window, open func()) (window, error) {
	opened := chromedp.WaitNewTarget(from.(*chromiumWindow).ctx, func(*target.Info) bool { return true })
	open()
	select {
	case id := <-opened:
		return c.watch(id)
	case <-time.After(stepTimeout):
		return nil, nil
	}
}

// watch attaches to a window, and from then on notes the errors in it. Chromium repeats what its
// console already contains.
func (c *chromiumProfile) watch(id target.ID) (window, error) {
	ctx, cancel := chromedp.NewContext(c.ctx, chromedp.WithTargetID(id))
	c.detach = append(c.detach, cancel)
	w := &chromiumWindow{profile: c, id: id, ctx: ctx}
	chromedp.ListenTarget(ctx, c.person.note)
	return w, w.try(network.Enable(), audits.Enable(), security.SetIgnoreCertificateErrors(true))
}

// note records an event of the browser if it reports an error in the window.
func (p *person) note(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		switch e.Type {
		case runtime.APITypeError, runtime.APITypeWarning, runtime.APITypeAssert:
			var text []string
			for _, arg := range e.Args {
				text = append(text, string(arg.Value)+arg.Description)
			}
			p.trouble("console.%s: %s", e.Type, strings.Join(text, " "))
		}
	case *runtime.EventExceptionThrown:
		p.trouble("uncaught: %s", e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			p.trouble("console: %s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		if d := e.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			p.trouble("Content-Security-Policy: %s %s", d.ViolatedDirective, d.BlockedURL)
		}
	case *network.EventRequestWillBeSent:
		p.request(e.Request.Method, e.Request.URL)
		if !p.site.isKnown(e.Request.URL) {
			p.trouble("request to another origin: %s", e.Request.URL)
		}
	}
}

// chromiumWindow implements window.
type chromiumWindow struct {
	profile *chromiumProfile
	id      target.ID
	ctx     context.Context
}

// try runs actions, and fails after stepTimeout. The first actions of a window open it. They run in
// the window's own context, because the window closes when the context of these actions ends.
func (w *chromiumWindow) try(actions ...chromedp.Action) error {
	if chromedp.FromContext(w.ctx).Target == nil {
		if err := chromedp.Run(w.ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(w.ctx, stepTimeout)
	defer cancel()
	return chromedp.Run(ctx, actions...)
}

// goTo implements window.
func (w *chromiumWindow) goTo(address string) error { return w.try(chromedp.Navigate(address)) }

// goBack implements window.
func (w *chromiumWindow) goBack(steps int) error {
	return w.try(chromedp.Evaluate(fmt.Sprintf("history.go(%d)", -steps), nil))
}

// click implements window. chromedp gives the nodes of a page new ids when it learns that the page
// has loaded, which may be after the element was found. Nothing was clicked then, and the element
// has to be found again.
func (w *chromiumWindow) click(element string) error {
	for deadline := time.Now().Add(stepTimeout); ; {
		err := w.try(chromedp.Click(element, chromedp.ByJSPath, chromedp.NodeVisible))
		if err == nil || !strings.Contains(err.Error(), "Could not find node with given id") || time.Now().After(deadline) {
			return err
		}
	}
}

// evaluate implements window.
func (w *chromiumWindow) evaluate(expression string) (json.RawMessage, error) {
	var value []byte
	err := w.try(chromedp.Evaluate(expression, &value,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if len(value) == 0 {
		value = []byte("null") // of undefined
	}
	return value, err
}

// toFront implements window.
func (w *chromiumWindow) toFront() error { return w.try(page.BringToFront()) }

// shut implements window.
func (w *chromiumWindow) shut() error { return target.CloseTarget(w.id).Do(w.profile.browser) }

// isOpen implements window.
func (w *chromiumWindow) isOpen() (bool, error) {
	open, err := target.GetTargets().Do(w.profile.browser)
	return slices.ContainsFunc(open, func(info *target.Info) bool { return info.TargetID == w.id }), err
}
