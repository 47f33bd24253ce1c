package web

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzPage holds that what a page is given is text: it changes neither the elements,
// nor where they lead, nor the policy.
func FuzzPage(f *testing.F) {
	for _, h := range hostile {
		f.Add(byte(0), h, h, h, "ja")
	}
	f.Add(byte(5), "Acme", "/a?b=c", "access_denied", "zh-TW,en;q=0.5")
	f.Fuzz(func(t *testing.T, n byte, words, path, cause, acceptLanguage string) {
		page := allPages[int(n)%len(allPages)]
		d := fullData()
		d.Brand, d.Provider, d.Balance, d.Required, d.Cause, d.AcceptLanguage = "x"+words, words, "x"+words, "x"+words, cause, acceptLanguage
		d.Budget, d.Spent, d.User = "x"+words, words, "x"+words
		d.StartURL, d.LogoutURL, d.HomeURL, d.RetryURL, d.TopupURL, d.SwitchURL = path, path, path, path, path, path
		d.Popup.Nonce, d.Popup.Error, d.Popup.OK = words, cause, false
		benign := d
		benign.Brand, benign.Provider, benign.Balance, benign.Required, benign.Budget, benign.Spent, benign.User = "x", "x", "x", "x", "x", "x", "x"
		benign.Popup.Nonce = "x"
		for _, u := range []*string{&benign.StartURL, &benign.LogoutURL, &benign.HomeURL, &benign.RetryURL, &benign.TopupURL, &benign.SwitchURL} {
			if isPath(path) {
				*u = "/"
			}
		}

		got, err := standard.Render(page, d)
		if err != nil {
			t.Fatal(err)
		}
		want, err := standard.Render(page, benign)
		if err != nil {
			t.Fatal(err)
		}
		if got.Policy != want.Policy || got.Language != want.Language {
			t.Errorf("policy %s, language %s", got.Policy, got.Language)
		}
		doc := parse(t, got)
		if doc.shape() != parse(t, want).shape() {
			t.Errorf("the elements changed:\n%s", got.Body)
		}
		for _, link := range doc.links() {
			if !strings.HasPrefix(link, "/") || strings.HasPrefix(link, "//") || strings.ContainsAny(link, "\\\t\r\n") {
				t.Errorf("a link to %q", link)
			}
		}
		controls := func(r rune) bool { return r < ' ' && r != '\n' || r == '\u202e' }
		if page != Popup && bytes.ContainsFunc(got.Body, controls) { // the popup's has the nonce, in an attribute
			t.Errorf("control characters:\n%q", got.Body)
		}
	})
}
