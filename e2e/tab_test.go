package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// stepTimeout is the timeout of one step in a browser. It is long enough for a busy machine.
const stepTimeout = time.Minute

// browser is a program that people use. Each test has profiles of its own in it.
type browser interface {
	newProfile(p *person) (profile, error)
}

// profile is a browser with its own cookies and storage, like a private window.
type profile interface {
	// open opens a new tab.
	open() (window, error)
	// opened does something in a window that opens another one, and returns the new one. It
	// returns nil if no window was opened in time.
	opened(from window, open func()) (window, error)
	close() error
}

// window is a tab or a popup.
type window interface {
	goTo(address string) error
	goBack(steps int) error
	// click clicks as a user does: with the mouse, on a visible element. An expression finds
	// the element.
	click(element string) error
	// evaluate returns the value of an expression, or of its promise, as JSON.
	evaluate(expression string) (json.RawMessage, error)
	toFront() error
	shut() error
	isOpen() (bool, error)
}

// person is a user of a browser with tabs and popups. An error in one of them fails the
// test if the browser reports errors, as Chromium does.
type person struct {
	t       *testing.T
	site    *site
	profile profile
	// isWatched is true if the browser reports errors.
	isWatched bool

	mu        sync.Mutex
	expected  []string // guarded by mu
	tolerated []string // guarded by mu
	troubles  []string // guarded by mu
	requests  []string // guarded by mu: method and path
}

// newPerson opens the site's browser. Its windows close at the end of the test.
func (s *site) newPerson() *person {
	s.t.Helper()
	p := &person{t: s.t, site: s}
	if s.browser == nil {
		s.browser = chromium
	}
	profile, err := s.browser.newProfile(p)
	if err != nil {
		s.t.Fatal(err)
	}
	p.profile = profile
	s.t.Cleanup(func() {
		if err := p.profile.close(); err != nil {
			s.t.Error(err)
		}
		for _, trouble := range p.unexpected() {
			s.t.Error(trouble)
		}
	})
	return p
}

// expect names an error that the test causes on purpose, by a part of its text. The test fails if
// the error does not occur.
func (p *person) expect(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = append(p.expected, part)
}

// tolerate names an error that may occur, and may also be missing.
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

// unexpected returns the errors that were neither expected nor tolerated, and the expected ones that
// did not occur.
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
		if p.isWatched && !met[part] {
			found = append(found, fmt.Sprintf("there was no %q, which the test expects", part))
		}
	}
	return found
}

// tab is a window of a person: a tab, or a popup.
type tab struct {
	t      *testing.T
	person *person
	window window
}

// open opens a new tab and goes to a page: a path of the site, or an address.
func (p *person) open(address string) *tab {
	p.t.Helper()
	opened, err := p.profile.open()
	if err != nil {
		p.t.Fatal(err)
	}
	w := &tab{t: p.t, person: p, window: opened}
	w.goTo(address)
	return w
}

// must ends the test if a step in a window failed.
func (w *tab) must(what string, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", what, err, w.describe())
	}
}

// run runs actions that only Chromium supports. what names them in the failure.
func (w *tab) run(what string, actions ...chromedp.Action) {
	w.t.Helper()
	chromium, ok := w.window.(*chromiumWindow)
	if !ok {
		w.t.Fatalf("%s: only Chromium supports this step", what)
	}
	w.must(what, chromium.try(actions...))
}

// describe returns the URL and the text of a window and its unexpected errors, for failures.
func (w *tab) describe() string {
	text, err := w.window.evaluate(`location.href.split("?")[0] + ": " + document.body?.innerText`)
	if err != nil {
		text = []byte(err.Error())
	}
	return string(text) + "\n" + strings.Join(w.person.unexpected(), "\n")
}

func (w *tab) goTo(address string) {
	w.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = w.person.site.url + address
	}
	w.must("going to "+address, w.window.goTo(address))
}

// goBack goes back in the history of a window.
func (w *tab) goBack(steps int) {
	w.t.Helper()
	w.must("going back", w.window.goBack(steps))
}

// click clicks as a person does: with the mouse, on a visible element. The element is named by a
// CSS selector, or by a JavaScript expression that returns it.
func (w *tab) click(element string) {
	w.t.Helper()
	w.must("clicking "+element, w.window.click(w.find(element)))
}

func (w *tab) find(element string) string {
	if strings.HasPrefix(element, "document.") {
		return element
	}
	return fmt.Sprintf("document.querySelector(%q)", element)
}

// evaluate returns the value of a JavaScript expression. For a promise it waits, and returns the
// promise's value.
func evaluate[T any](w *tab, expression string) T {
	w.t.Helper()
	var value T
	text, err := w.window.evaluate(expression)
	w.must("evaluating "+expression, err)
	w.must("evaluating "+expression, json.Unmarshal(text, &value))
	return value
}

// eventually waits until an expression is true. The window may load other pages meanwhile.
func (w *tab) eventually(expression string) {
	w.t.Helper()
	for deadline := time.Now().Add(stepTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if value, err := w.window.evaluate("Boolean(" + expression + ")"); err == nil && string(value) == "true" {
			return
		}
	}
	w.t.Fatalf("timed out waiting until %s\n%s", expression, w.describe())
}

// shows waits until the page holds a text.
func (w *tab) shows(text string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("document.body?.innerText.includes(%q)", text))
}

// popup calls open, which has to open a window, and returns that window.
func (w *tab) popup(open func()) *tab {
	w.t.Helper()
	opened, err := w.person.profile.opened(w.window, open)
	w.must("opening a window", err)
	if opened == nil {
		w.t.Fatalf("no window was opened\n%s", w.describe())
	}
	return &tab{t: w.t, person: w.person, window: opened}
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
	for deadline := time.Now().Add(stepTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		open, err := w.window.isOpen()
		if err != nil {
			w.t.Fatal(err)
		}
		if !open {
			return
		}
	}
	w.t.Fatalf("the window is still open\n%s", w.describe())
}

// shut closes a window, as a person does.
func (w *tab) shut() {
	w.t.Helper()
	w.must("closing the window", w.window.shut())
}

// toFront goes back to a window.
func (w *tab) toFront() {
	w.t.Helper()
	w.must("going back to the window", w.window.toFront())
}
