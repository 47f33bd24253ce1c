package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// patience is how long a browser has for one step, on a machine that is busy.
const patience = 20 * time.Second

// person is a browser with cookies and storage of its own, in which tabs and popups
// are opened. What goes wrong in one of them is an error of the test.
type person struct {
	t       *testing.T
	site    *site
	ctx     context.Context // of chromedp, for the whole Chromium
	browser context.Context // for commands to it
	profile cdp.BrowserContextID
	isOpen  bool // has a window

	mu        sync.Mutex
	expected  []string // guarded by mu
	tolerated []string // guarded by mu
	troubles  []string // guarded by mu
	requests  []string // guarded by mu: method and path
}

// newPerson opens a browser. Its windows close at the end of the test.
func (s *site) newPerson() *person {
	s.t.Helper()
	ctx, err := chromium.context()
	if err != nil {
		s.t.Fatal(err)
	}
	p := &person{t: s.t, site: s, ctx: ctx, browser: cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser)}
	if p.profile, err = target.CreateBrowserContext().Do(p.browser); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := target.DisposeBrowserContext(p.profile).Do(p.browser); err != nil {
			s.t.Error(err)
		}
		for _, trouble := range p.unexpected() {
			s.t.Error(trouble)
		}
	})
	return p
}

// expect names a trouble that this test brings about on purpose: a part of its text.
func (p *person) expect(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = append(p.expected, part)
}

// tolerate names a trouble that is in order where it comes in time to be seen.
func (p *person) tolerate(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tolerated = append(p.tolerated, part)
}

func (p *person) trouble(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.troubles = append(p.troubles, fmt.Sprintf(format, args...))
}

func (p *person) request(method, address string) {
	path, _, _ := strings.Cut(strings.TrimPrefix(address, p.site.url), "?")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, method+" "+path)
}

// sent counts the requests for a method and a path that this person's windows have sent.
func (p *person) sent(request string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, sent := range p.requests {
		if sent == request {
			n++
		}
	}
	return n
}

// unexpected are the troubles that nobody has named, and the names of those that did
// not come.
func (p *person) unexpected() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	met := map[string]bool{}
troubles:
	for _, trouble := range p.troubles {
		for _, part := range slices.Concat(p.expected, p.tolerated) {
			if strings.Contains(trouble, part) {
				met[part] = true
				continue troubles
			}
		}
		found = append(found, trouble)
	}
	for _, part := range p.expected {
		if !met[part] {
			found = append(found, fmt.Sprintf("there was no %q, which the test expects", part))
		}
	}
	return found
}

// tab is a window of a person: a tab, or a popup.
type tab struct {
	t      *testing.T
	person *person
	id     target.ID
	ctx    context.Context
}

// open opens a new tab and goes to a page: a path of the site, or an address.
func (p *person) open(address string) *tab {
	p.t.Helper()
	id, err := target.CreateTarget("about:blank").WithBrowserContextID(p.profile).WithNewWindow(!p.isOpen).Do(p.browser)
	if err != nil {
		p.t.Fatal(err)
	}
	p.isOpen = true
	w := p.watch(id)
	w.goTo(address)
	return w
}

// watch attaches to a window, and notes from then on what goes wrong in it. What its
// console holds already is told again.
func (p *person) watch(id target.ID) *tab {
	p.t.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx, chromedp.WithTargetID(id))
	p.t.Cleanup(cancel)
	w := &tab{t: p.t, person: p, id: id, ctx: ctx}
	chromedp.ListenTarget(ctx, p.note)
	w.run("attaching", network.Enable(), audits.Enable())
	return w
}

// note looks at what the browser tells about a window.
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

// run does something in a window; what says what, where it fails.
func (w *tab) run(what string, actions ...chromedp.Action) {
	w.t.Helper()
	if err := w.try(actions...); err != nil {
		w.t.Fatalf("%s: %v\n%s", what, err, w.describe())
	}
}

// try gives up after patience. The first actions of a window open it, and must run in
// its own context: it ends with the context.
func (w *tab) try(actions ...chromedp.Action) error {
	if chromedp.FromContext(w.ctx).Target == nil {
		if err := chromedp.Run(w.ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, actions...)
}

// describe tells where a window is, for messages.
func (w *tab) describe() string {
	ctx, cancel := context.WithTimeout(w.ctx, 2*time.Second)
	defer cancel()
	var text string
	chromedp.Run(ctx, chromedp.Evaluate(`location.href.split("?")[0] + ": " + document.body?.innerText`, &text))
	return text + "\n" + strings.Join(w.person.unexpected(), "\n")
}

func (w *tab) goTo(address string) {
	w.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = w.person.site.url + address
	}
	w.run("going to "+address, chromedp.Navigate(address))
}

// click clicks as a person does: with the mouse, on what it is seen at. The element is
// given by a selector, or by what JavaScript finds it with.
func (w *tab) click(element string) {
	w.t.Helper()
	w.run("clicking "+element, chromedp.Click(w.find(element), chromedp.ByJSPath, chromedp.NodeVisible))
}

func (w *tab) find(element string) string {
	if strings.HasPrefix(element, "document.") {
		return element
	}
	return fmt.Sprintf("document.querySelector(%q)", element)
}

// evaluate gives the value of an expression, or what its promise comes to.
func evaluate[T any](w *tab, expression string) T {
	w.t.Helper()
	var value T
	w.run("evaluating "+expression, chromedp.Evaluate(expression, &value,
		func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return value
}

// eventually waits until an expression is true, over all pages that the window goes to
// meanwhile.
func (w *tab) eventually(expression string) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var ok bool
		if err := w.try(chromedp.Evaluate("Boolean("+expression+")", &ok)); err == nil && ok {
			return
		}
	}
	w.t.Fatalf("it never came to pass that %s\n%s", expression, w.describe())
}

// shows waits until the page holds a text.
func (w *tab) shows(text string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("document.body?.innerText.includes(%q)", text))
}

// popup does something that opens a window, and gives that window.
func (w *tab) popup(open func()) *tab {
	w.t.Helper()
	opened := chromedp.WaitNewTarget(w.ctx, func(*target.Info) bool { return true })
	open()
	select {
	case id := <-opened:
		return w.person.watch(id)
	case <-time.After(patience):
		w.t.Fatalf("no window was opened\n%s", w.describe())
		return nil
	}
}

// signIn clicks on a user in the provider's form.
func (w *tab) signIn(user string) {
	w.t.Helper()
	w.shows("Sign in as")
	w.click(fmt.Sprintf(`button.account[value="%s"]`, user))
}

// closed waits until a window is gone.
func (w *tab) closed() {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		open, err := target.GetTargets().Do(w.person.browser)
		if err != nil {
			w.t.Fatal(err)
		}
		if !slices.ContainsFunc(open, func(info *target.Info) bool { return info.TargetID == w.id }) {
			return
		}
	}
	w.t.Fatalf("the window is still open\n%s", w.describe())
}

// shut closes a window, as a person does.
func (w *tab) shut() {
	w.t.Helper()
	if err := target.CloseTarget(w.id).Do(w.person.browser); err != nil {
		w.t.Fatal(err)
	}
}

// toFront goes back to a window.
func (w *tab) toFront() {
	w.t.Helper()
	w.run("going back to the window", page.BringToFront())
}
