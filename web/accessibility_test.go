package web

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// axeFolder pins axe-core, by version and hash. It has a licence of its own (MPL-2.0)
// and is no part of this repository; no Debian package and no Go module has it.
const axeFolder = "testdata/axe"

// axeCore is the source of axe-core. The first test that needs it has npm fetch it.
var axeCore = sync.OnceValues(func() (string, error) {
	file := filepath.Join(axeFolder, "node_modules", "axe-core", "axe.min.js")
	if source, err := os.ReadFile(file); err == nil {
		return string(source), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci")
	npm.Dir = axeFolder
	if output, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetching axe-core with `npm ci` in web/%s: %w; on Debian and Ubuntu npm is in the package npm\n%s", axeFolder, err, output)
	}
	source, err := os.ReadFile(file)
	return string(source), err
})

// violations runs axe-core on the page that a tab shows: with all its rules, those for
// WCAG 2.2 AA and AAA and the good practices among them, and with what it cannot decide.
func (b *tab) violations() []string {
	b.t.Helper()
	source, err := axeCore()
	if err != nil {
		b.t.Fatal(err)
	}
	var found struct {
		Rules  int
		Faults []string
	}
	b.eval(source+"\n;0", nil)
	b.eval(`axe.run(document, {preload: false, rules: {"target-size": {enabled: true}}}).then(r => ({
		rules: r.passes.length,
		faults: [...r.violations, ...r.incomplete].flatMap(v => v.nodes.map(n => v.id + ": " + v.help + ": " + n.html + ": " + n.failureSummary)),
	}))`, &found)
	if found.Rules < 15 {
		b.t.Errorf("only %d rules had anything to look at", found.Rules)
	}
	return found.Faults
}

func TestNoPageHasAnAccessibilityFault(t *testing.T) {
	b := newTab(t)
	for _, scheme := range []map[string]string{light(), dark()} {
		b.look(1200, scheme)
		for _, shown := range shownPages() {
			b.show(standard, shown.page, shown.data)
			for _, fault := range b.violations() {
				t.Errorf("%s, %v: %s", shown.name, scheme, fault)
			}
		}
	}
}

func TestLanguagesLogosAndColoursAreAccessible(t *testing.T) {
	b := newTab(t)
	for _, l := range translations[1:] {
		for _, page := range []Page{SignIn, Balance, Budget, Error} {
			d := fullData()
			d.AcceptLanguage = l.tag.String()
			b.look(360, light())
			b.show(standard, page, d)
			for _, fault := range b.violations() {
				t.Errorf("%s, %s: %s", page, l.tag, fault)
			}
		}
	}
	logo, err := ParseLogo([]byte(svgLogo))
	if err != nil {
		t.Fatal(err)
	}
	for _, colour := range []string{"ffe000", "0b1020", "808080"} {
		own := mustNew(Options{Logo: logo, Accent: mustParseAccent(t, colour)})
		for _, scheme := range []map[string]string{light(), dark()} {
			b.look(360, scheme)
			b.show(own, Logout, fullData())
			for _, fault := range b.violations() {
				t.Errorf("%s, %v: %s", colour, scheme, fault)
			}
		}
	}
}

// The check itself must be able to fail.
func TestTheAccessibilityCheckFindsFaults(t *testing.T) {
	b := newTab(t)
	b.show(standard, SignIn, fullData())
	b.eval(`document.documentElement.removeAttribute("lang"); document.querySelector("h1").remove();
		document.querySelector("p").style.color = "#fefefe"; document.querySelector(".button").textContent = ""; 0`, nil)
	faults := strings.Join(b.violations(), "\n")
	for _, rule := range []string{"html-has-lang", "page-has-heading-one", "color-contrast", "link-name"} {
		if !strings.Contains(faults, rule+":") {
			t.Errorf("a fault of the rule %s is not found:\n%s", rule, faults)
		}
	}
	b.complaints = nil // our own style attribute is blocked
}

const focused = `(() => {
	const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
	return e === document.body ? null : {
		name: e.textContent.trim(), visible: e.matches(":focus-visible") && r.width > 0 && r.height > 0,
		outline: s.outlineStyle === "none" ? 0 : parseFloat(s.outlineWidth),
	};
})()`

type focus struct {
	Name    string
	Visible bool
	Outline float64
}

func TestKeyboardReachesEveryControlWithAVisibleFocus(t *testing.T) {
	b := newTab(t)
	for _, scheme := range []map[string]string{light(), dark()} {
		b.look(360, scheme)
		for _, shown := range shownPages() {
			b.show(standard, shown.page, shown.data)
			var controls []string
			b.eval(`[...document.querySelectorAll("a, button, input, select, textarea, [tabindex], summary")].map(e => e.textContent.trim())`, &controls)
			if len(controls) == 0 {
				t.Errorf("%s has no control", shown.name)
			}
			for _, control := range controls {
				b.run(chromedp.KeyEvent(kb.Tab))
				var at *focus
				b.eval(focused, &at)
				switch {
				case at == nil || at.Name != control:
					t.Errorf("%s: Tab leads to %v, want %q", shown.name, at, control)
				case !at.Visible || at.Outline < 2:
					t.Errorf("%s: the focus on %q is not seen: %+v", shown.name, control, at)
				}
			}
		}
	}
}

func TestEnterDoesWhatAClickDoes(t *testing.T) {
	b := newTab(t)
	for page, want := range map[Page]string{
		SignIn: "GET /oauth/start", SignedOut: "GET /oauth/start", Logout: "POST /oauth/logout", Forbidden: "POST /oauth/logout",
		Error: "GET /oauth/start", Unavailable: "GET /again", Budget: "GET /again", Continue: "GET /home",
	} {
		before := len(b.server.elsewhere())
		b.show(standard, page, fullData())
		b.run(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter), chromedp.WaitReady("#elsewhere", chromedp.ByQuery))
		if got := b.server.elsewhere()[before:]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: Enter asks for %v, want %s", page, got, want)
		}
	}
}

func TestEveryPageFitsANarrowWindowInEveryLanguage(t *testing.T) {
	b := newTab(t)
	b.look(320, light()) // WCAG 2.2, 1.4.10
	for _, l := range translations {
		for _, shown := range shownPages() {
			shown.data.AcceptLanguage = l.tag.String()
			shown.data.Brand = "Donaudampfschifffahrtsgesellschaftskapitän & Söhne"
			shown.data.User = strings.Repeat("Donaudampfschifffahrtsgesellschaftskapitän", 10)
			shown.data.Required, shown.data.Spent = strings.Repeat("1234567890", 5), strings.Repeat("1234567890", 5)
			b.show(standard, shown.page, shown.data)
			var over []string
			b.eval(`[...document.querySelectorAll("body, body *:not(svg, svg *)")]
				.filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline" || e.getBoundingClientRect().right > innerWidth)
				.map(e => e.outerHTML.slice(0, 80))`, &over)
			for _, e := range over {
				t.Errorf("%s, %s: too wide: %s", shown.name, l.tag, e)
			}
		}
	}
}

func TestReducedMotionStopsEveryAnimation(t *testing.T) {
	b := newTab(t)
	for preference, want := range map[string]int{"no-preference": 1, "reduce": 0} {
		b.look(360, map[string]string{"prefers-reduced-motion": preference})
		b.show(standard, Continue, fullData())
		var animations int
		b.eval(`document.getAnimations().length`, &animations)
		if animations != want {
			t.Errorf("%s: %d animations, want %d", preference, animations, want)
		}
	}
}

func TestPagesShowAllTextsWithoutJavaScript(t *testing.T) {
	b := newTab(t)
	b.scriptless = true
	b.run(emulation.SetScriptExecutionDisabled(true))
	for _, shown := range shownPages() {
		b.show(standard, shown.page, shown.data)
		var seen string
		b.eval(`document.querySelector("main").innerText`, &seen)
		for _, element := range []string{"h1", "a", "button"} {
			doc, _ := mustRender(t, shown.page, shown.data)
			for _, n := range doc.all(element) {
				words := strings.TrimPrefix(text(n), english.text["popup.busy"])
				if !strings.Contains(seen, words) {
					t.Errorf("%s: %q is not seen in %q", shown.name, words, seen)
				}
			}
		}
		if strings.Contains(seen, english.text["popup.busy"]) {
			t.Errorf("%s seems to work for ever: %q", shown.name, seen)
		}
	}
}

func TestLogoRunsNoScript(t *testing.T) {
	b := newTab(t)
	logo, err := ParseLogo([]byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4" onload="parent.document.title='hacked'">
		<script>parent.document.title = "hacked"; document.title = "hacked"</script>
		<image href="` + b.server.URL + `/picture" width="4" height="4"/>
		<style>@import url("` + b.server.URL + `/style");</style></svg>`))
	if err != nil {
		t.Fatal(err)
	}
	b.show(mustNew(Options{Logo: logo}), SignIn, fullData())
	var seen struct {
		Width int
		Title string
	}
	b.eval(`({width: document.querySelector(".logo").getBoundingClientRect().width, title: document.title})`, &seen)
	if seen.Width == 0 || seen.Title != "Sign in · Acme Studio" {
		t.Errorf("%+v", seen)
	}
	if got := b.server.elsewhere(); len(got) != 0 {
		t.Errorf("the logo loads %v", got)
	}
}
