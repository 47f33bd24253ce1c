package web

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestPopupHasItsMessageInAttributes(t *testing.T) {
	for name, c := range map[string]struct {
		in            PopupMessage
		ok, errorCode string
		heading       string
	}{
		"signed in": {PopupMessage{OK: true}, "true", "", "You are signed in"},
		"declined":  {PopupMessage{Error: "access_denied"}, "false", "access_denied", "Sign-in was declined"},
		// What the provider wrote never reaches the application.
		"unknown error": {PopupMessage{Error: "<b>call us</b>"}, "false", "server_error", "The sign-in did not work"},
		"no error":      {PopupMessage{}, "false", "server_error", "The sign-in did not work"},
		"ok wins":       {PopupMessage{OK: true, Error: "access_denied"}, "true", "", "You are signed in"},
	} {
		t.Run(name, func(t *testing.T) {
			d := fullData()
			d.Popup = c.in
			d.Popup.Nonce, d.Popup.Origin = `n"1<2>`, "https://app.example.com:8443"
			doc, _ := mustRender(t, Popup, d)
			main := doc.one(t, "main")
			for attribute, want := range map[string]string{
				"id":          "login",
				"data-ok":     c.ok,
				"data-error":  c.errorCode,
				"data-nonce":  `n"1<2>`,
				"data-origin": "https://app.example.com:8443",
			} {
				if got, _ := attr(main, attribute); got != want {
					t.Errorf("%s = %q, want %q", attribute, got, want)
				}
			}
			if got := text(doc.one(t, "h1")); got != "Signing you in…"+c.heading {
				t.Errorf("heading = %q", got)
			}
			if !strings.Contains(doc.visibleText(), "You can close this window.") {
				t.Error("nothing is said to people whose window stays open")
			}
		})
	}
}

func TestPopupPostsOnlyToAnExactOrigin(t *testing.T) {
	for _, o := range append([]string{
		"", "*", "/", "null", "app.example.com", "//app.example.com", "https://", "https://*", "https://*.example.com",
		"https://app.example.com/", "https://app.example.com/x", "https://app.example.com?x", "https://app.example.com#x",
		"https://user@app.example.com", "https://app.example.com:", "https://app.example.com:port", "HTTPS://app.example.com",
		"https://App.example.com", "https://app.example.com ", " https://app.example.com", "https://app.example.com\n",
		"https://a\\b", "ftp://app.example.com", "file://", "data:,", "https://[::1", "https://ex%61mple.com",
	}, hostile...) {
		d := fullData()
		d.Popup.Origin = o
		if rendered, err := standard.Render(Popup, d); !errors.Is(err, errOrigin) || rendered.Body != nil || rendered.Policy != "" {
			t.Errorf("origin %q: error %v, %+v", o, err, rendered)
		}
	}
	for _, o := range []string{
		"https://app.example.com", "https://app.example.com:8443", "http://localhost:8080", "http://127.0.0.1",
		"http://[::1]:8080", "https://xn--mnchen-3ya.example", "https://my_host.local",
	} {
		d := fullData()
		d.Popup.Origin = o
		doc, _ := mustRender(t, Popup, d)
		if got, _ := attr(doc.one(t, "main"), "data-origin"); got != o {
			t.Errorf("origin %q became %q", o, got)
		}
	}
}

// The same script for everyone is what lets a hash allow it.
func TestPopupScriptContainsNoDataAndNoWildcard(t *testing.T) {
	code := regexp.MustCompile(`(?m)//.*$`).ReplaceAllString(scripts[Popup], "")
	if strings.Contains(code, "*") || strings.Contains(code, "{{") || strings.Contains(code, "innerHTML") {
		t.Errorf("script:\n%s", code)
	}
	for _, want := range []string{`postMessage(message, origin)`, `new BroadcastChannel("tollgate")`, `"tollgate:login"`, `window.close()`} {
		if !strings.Contains(code, want) {
			t.Errorf("script lacks %s", want)
		}
	}
}
