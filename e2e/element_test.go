package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// answersPage lets the page answer the SDK's questions itself, from its address.
func answersPage(lang, inside string) map[string]string {
	return map[string]string{
		"/": `<!doctype html><html lang="` + lang + `"><head><meta charset="utf-8"><title>A page</title><link rel="icon" href="data:,">` +
			`<script src="/page.js"></script><script src="/oauth/sdk.js" type="module"></script></head><body>` +
			`<tollgate-user>` + inside + `</tollgate-user></body></html>`,
		"/page.js": `const answer = decodeURIComponent(location.hash.slice(1));
			if (answer) window.fetch = async () => answer === "never" ? new Promise(() => {}) : new Response(answer === "204" ? null : "{}", { status: Number(answer) });`,
	}
}

// visible are the parts of the element that are seen, and their texts.
const visible = `Object.fromEntries([...document.querySelector("tollgate-user").shadowRoot.querySelectorAll("[part=box] > [part]")]
	.filter(one => one.checkVisibility() && one.textContent.trim()).map(one => [one.getAttribute("part").split(" ").at(-1), one.textContent.trim()]))`

func TestElementShowsTheUserAndTheBalance(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: answersPage("en", "")})
		w := s.newPerson().open("/#204")
		for _, c := range []struct {
			answer, state string
			want          map[string]string
		}{
			{"never", "loading", map[string]string{"loading": "Loading…"}},
			{"204", "out", map[string]string{"login": "Sign in"}},
			{"401", "out", map[string]string{"login": "Sign in"}},
			{"503", "error", map[string]string{"retry": "Try again", "message": "That did not work"}},
			{"200", "error", map[string]string{"retry": "Try again", "message": "That did not work"}}, // not ours
			{"403", "error", map[string]string{"retry": "Try again", "logout": "Sign out", "message": "This account cannot be used here"}},
		} {
			w.goTo("/?" + c.answer + "#" + c.answer) // the query changes, too: a new fragment alone would not load the page again
			w.eventually(`document.querySelector("tollgate-user").dataset.state === "` + c.state + `"`)
			if got := evaluate[map[string]string](w, visible); !maps.Equal(got, c.want) {
				t.Errorf("%s: shows %v, want %v", c.answer, got, c.want)
			}
			if got := evaluate[string](w, part("box")+".ariaBusy"); got != fmt.Sprint(c.state == "loading") {
				t.Errorf("%s: aria-busy is %s, want %s", c.answer, got, fmt.Sprint(c.state == "loading"))
			}
		}
		w.goTo("/")
		w.isOut()
		w.signInByClick()
		want := map[string]string{
			"name": "user123", "email": "user@example.com", "balance": "Balance 750.00",
			"refresh": "Refresh", "topup": "Top up", "logout": "Sign out",
		}
		if got := evaluate[map[string]string](w, visible); !maps.Equal(got, want) {
			t.Errorf("signed in: shows %v, want %v", got, want)
		}
	})
}

func TestElementUsesTheLanguageOfThePage(t *testing.T) {
	s := newSite(t, siteOptions{pages: answersPage("es", "")})
	w := s.newPerson().open("/#204")
	w.isOut()
	if got := evaluate[map[string]string](w, visible)["login"]; got != "Iniciar sesión" {
		t.Errorf("the page's language: says %q, want %q", got, "Iniciar sesión")
	}
	for lang, want := range map[string]string{
		"en": "Sign in", "en-GB": "Sign in", "pt-BR": "Entrar", "pt": "Entrar", "es-MX": "Iniciar sesión", "ja": "ログイン", "JA-jp": "ログイン",
		"zh": "登录", "zh-CN": "登录", "zh-Hant": "登入", "zh-TW": "登入", "zh-Hant-HK": "登入", "fr": "Sign in", "": "Sign in", "constructor": "Sign in",
	} {
		got := evaluate[string](w, fmt.Sprintf(`(lang => {
			const host = document.body.appendChild(document.createElement("div"));
			host.lang = lang;
			const inner = host.attachShadow({ mode: "open" });
			return inner.appendChild(document.createElement("tollgate-user")).shadowRoot.querySelector("[part~=login]").textContent;
		})(%q)`, lang))
		if got != want {
			t.Errorf("%s: says %q, want %q", lang, got, want)
		}
	}
}

func TestPageCanSetTextsAndStylesOfTheElement(t *testing.T) {
	pages := answersPage("en", `<b slot="login">Continue</b>`)
	pages["/"] = `<!doctype html><link rel="stylesheet" href="/page.css">` + pages["/"][len("<!doctype html>"):]
	pages["/page.css"] = `tollgate-user { --tollgate-accent: rgb(1, 2, 3); } tollgate-user::part(login) { letter-spacing: 3px; }`
	s := newSite(t, siteOptions{pages: pages})
	w := s.newPerson().open("/#204")
	w.isOut()
	if got := evaluate[string](w, part("login")+`.querySelector("slot").assignedNodes()[0].textContent`); got != "Continue" {
		t.Errorf("the button says %q, want %q", got, "Continue")
	}
	if got := evaluate[string](w, `(s => s.backgroundColor + s.letterSpacing)(getComputedStyle(`+part("login")+`))`); got != "rgb(1, 2, 3)3px" {
		t.Errorf("the button looks like %s, want %s", got, "rgb(1, 2, 3)3px")
	}
}

func TestElementEscapesNames(t *testing.T) {
	const hostile = `<img src=x onerror="document.title='hacked'">`
	s := newSite(t, siteOptions{pages: sdkPage, provider: simulator.Options{Users: []simulator.User{
		{ID: 12345, Username: hostile, Email: hostile + "@example.com", BalanceCents: 100, Status: simulator.StatusEnabled},
	}}})
	w := s.newPerson().openSDK()
	w.popup(func() { w.click(part("login")) }).signIn(gatewaytest.UserID)
	w.isIn(hostile, "1.00")
	if evaluate[bool](w, `Boolean(document.querySelector("tollgate-user").shadowRoot.querySelector("img")) || document.title !== "A page"`) {
		t.Errorf("the element has treated the name %s as HTML", hostile)
	}
}

func TestElementShowsTheIDOfAUserWithoutAVisibleName(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, provider: simulator.Options{Users: []simulator.User{
		{ID: 12345, Username: "\u202e\u200b", BalanceCents: 100, Status: simulator.StatusEnabled},
	}}})
	w := s.newPerson().openSDK()
	w.popup(func() { w.click(part("login")) }).signIn(gatewaytest.UserID)
	w.isIn("12345", "1.00")
}

func TestTheElementIsUsedByKeyboardAndKeepsTheFocus(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.isOut()
	w.popup(func() { w.run("signing in by keyboard", chromedp.KeyEvent(kb.Tab+kb.Tab+kb.Enter)) }).signIn(gatewaytest.UserID)
	w.isIn("user123", "750.00")
	focused := `document.activeElement.shadowRoot?.activeElement?.getAttribute("part")`
	if got := evaluate[string](w, focused); got != "button refresh" {
		t.Errorf("the focus is on %q, want %q", got, "button refresh")
	}
	w.run("signing out by keyboard", chromedp.KeyEvent(kb.Tab+kb.Tab+kb.Enter))
	w.isOut()
	if got := evaluate[string](w, focused); got != "button login" {
		t.Errorf("the focus is on %q, want %q", got, "button login")
	}
	got := evaluate[[]string](w, "["+part("box")+".role, "+part("box")+".ariaLabel, "+part("message")+".role]")
	if want := []string{"group", "Account", "status"}; !slices.Equal(got, want) {
		t.Errorf("to a screen reader it is %q, want %q", got, want)
	}
}

func TestElementWithoutATopUpPageHasNoTopUpButton(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, inProvider: "topup_endpoint off"})
	p := s.newPerson()
	w := p.openSDK()
	w.signInByClick()
	if evaluate[bool](w, part("topup")+".checkVisibility()") {
		t.Error("the top-up button is visible, want none with `topup_endpoint off`")
	}
	w.act("tollgate.topUp()")
	if got := w.result(); got != `{"error":"no_topup","name":"TollgateError"}` {
		t.Errorf("result: got %s, want %s", got, `{"error":"no_topup","name":"TollgateError"}`)
	}
}
