package demo

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ask sends one request, with headers as "Name: value".
func ask(t *testing.T, spend SpendFunc, method, target string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	if spend == nil {
		spend = func(string, int64) error {
			t.Error("money was spent")
			return nil
		}
	}
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+target, nil)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	New(spend).ServeHTTP(w, r)
	return w
}

const html = "Accept: text/html"

func TestPageShowsTheIdentityHeaders(t *testing.T) {
	w := ask(t, nil, "GET", "/", html, "X-User-Id: 7", "X-User-Name: %E5%BC%A0 %3Cb%3E", "X-User-Email: a%25b@example.com",
		"X-User-Balance: 12.30", "X-User-Balance-State: stale", "X-User-Balance-Age: 61", "X-User-Other: new")
	page := w.Body.String()
	for _, want := range []string{
		"张 &lt;b&gt;", "a%b@example.com", "<code>%E5%BC%A0 %3Cb%3E</code>", `id="balance">12.30</p>`, "stale", "read 61 seconds ago",
		"X-User-Other", "none arrived",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "Your balance is used up") || strings.Count(page, "<script") != 1 || strings.Contains(page, "style=") {
		t.Errorf("the page says too much:\n%s", page)
	}
	if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Security-Policy") != policy {
		t.Errorf("the header is %v", w.Header())
	}
}

func TestUserIsShownByTheFirstTextThatThereIs(t *testing.T) {
	for _, test := range []struct {
		user          user
		initial, said string
	}{
		{user{Name: "ärger", Email: "b@example.com", ID: "7", Age: "0"}, "Ä", "read just now"},
		{user{Email: "b@example.com", ID: "7", Age: "1"}, "B", "read 1 second ago"},
		{user{ID: "7", Age: "61"}, "7", "read 61 seconds ago"},
		{user{}, "?", "of unknown age"},
	} {
		if initial, said := test.user.Initial(), test.user.Since(); initial != test.initial || said != test.said {
			t.Errorf("%+v: got %q, %q, want %q, %q", test.user, initial, said, test.initial, test.said)
		}
	}
}

func TestDamagedEncodingIsShownAsItCame(t *testing.T) {
	for value, want := range map[string]string{"%E5%BC%A0": "张", "50%": "50%", "%zz": "%zz", "%FF": "%FF", "": ""} {
		if got := decode(value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

func TestUnknownBalanceIsNotUsedUp(t *testing.T) {
	for balance, want := range map[string]bool{"": false, "soon": false, "0.50": false, "750.00": false, "0.49": true, "0": true, "-3.00": true} {
		if got := (user{Balance: balance}).UsedUp(); got != want {
			t.Errorf("%q: got %v", balance, got)
		}
	}
}

func TestAnotherSitesFormsAreRefused(t *testing.T) {
	for _, path := range []string{"/ask", "/model", "/refresh-balance"} {
		for _, header := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example", "Origin: null"} {
			if w := ask(t, nil, "POST", path, "X-User-Id: 7", header); w.Code != http.StatusForbidden {
				t.Errorf("%s with %s: got %d", path, header, w.Code)
			}
		}
	}
	if w := ask(t, nil, "POST", "/refresh-balance", "X-User-Id: 7", "Origin: http://127.0.0.1:8080"); w.Code != http.StatusSeeOther {
		t.Errorf("the own origin: got %d", w.Code)
	}
}

func TestFormWithoutAUserChargesNothing(t *testing.T) {
	for _, path := range []string{"/ask", "/refresh-balance"} {
		w := ask(t, nil, "POST", path, "Sec-Fetch-Site: same-origin")
		if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "You are signed out") {
			t.Errorf("%s: got %d", path, w.Code)
		}
	}
	if w := ask(t, nil, "GET", "/", html); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "bypassed the gateway") {
		t.Errorf("bypassing the gateway: got %d", w.Code)
	}
	if w := ask(t, nil, "GET", "/ask", "X-User-Id: 7"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("asking with GET: got %d", w.Code)
	}
	if w := ask(t, nil, "POST", "/refresh-balance", "X-User-Id: 7"); w.Header().Get("Tollgate-Balance") != "changed" || w.Header().Get("Location") != "/" {
		t.Errorf("refreshing: got %d, %v", w.Code, w.Header())
	}
}

func TestPublicPageWarnsOfAnIdentityHeader(t *testing.T) {
	if w := ask(t, nil, "GET", "/public", html); strings.Contains(w.Body.String(), "An identity header arrived") {
		t.Errorf("without: %s", w.Body)
	}
	if w := ask(t, nil, "GET", "/public", html, "X-User-Id: 7"); !strings.Contains(w.Body.String(), "An identity header arrived") {
		t.Errorf("with: %s", w.Body)
	}
	if w := ask(t, nil, "GET", "/public", "X-User-Id: 7"); w.Body.String() != "X-User-Id: 7\n" {
		t.Errorf("as a script: %s", w.Body)
	}
}

func TestEveryPageHasItsLinks(t *testing.T) {
	for _, path := range []string{"/", "/public", "/optional"} {
		page := ask(t, nil, "GET", path, html, "X-User-Id: 7", "X-User-Name: somebody").Body.String()
		for _, want := range []string{`href="/public"`, `href="/optional"`, `action="/oauth/logout"`, `href="/assets/style.css"`} {
			if !strings.Contains(page, want) {
				t.Errorf("%s has no %s", path, want)
			}
		}
	}
}
