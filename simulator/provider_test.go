package simulator_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestPathsAndMethodsOutsideTheDocumentAreRefused(t *testing.T) {
	w := start(t, simulator.Options{})
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/", http.StatusOK},
		{"POST", "/", http.StatusMethodNotAllowed},
		{"GET", "/unknown", http.StatusNotFound},
		{"GET", "/api/oauth2/", http.StatusNotFound},
		{"GET", simulator.UserInfoPath + "/", http.StatusNotFound},
		{"POST", simulator.AuthorizePath, http.StatusMethodNotAllowed},
		{"GET", simulator.TokenPath, http.StatusMethodNotAllowed},
		{"PUT", simulator.TokenPath, http.StatusMethodNotAllowed},
		{"POST", simulator.UserInfoPath, http.StatusMethodNotAllowed},
		{"POST", simulator.TopUpPath, http.StatusMethodNotAllowed},
		{"GET", simulator.AppsPath, http.StatusMethodNotAllowed},
		{"GET", simulator.RevokePath, http.StatusMethodNotAllowed},
		{"GET", simulator.LoginPath, http.StatusMethodNotAllowed},
		{"GET", simulator.LogoutPath, http.StatusMethodNotAllowed},
		{"GET", simulator.ConsentPath, http.StatusMethodNotAllowed},
	} {
		answer := w.browser().send(test.method, test.path, nil, "")
		if answer.StatusCode != test.want {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, answer.StatusCode, test.want)
		}
		if answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s may be cached", test.method, test.path)
		}
	}
}

func TestRequestsBeyondTheLimitsAreRefused(t *testing.T) {
	w := start(t, simulator.Options{})
	w.wantStatus(w.browser().get("/?"+strings.Repeat("a", 9<<10)), http.StatusRequestURITooLong)

	long := w.browser().send("POST", simulator.TokenPath, formHeader(), "a="+strings.Repeat("a", 40<<10))
	w.wantStatus(long, http.StatusRequestEntityTooLarge)
	if n := w.Count(simulator.Token); n != 0 {
		t.Errorf("a request that was not read is counted: %d", n)
	}
}

func TestIndexPageNamesUsersBalancesAndEndpoints(t *testing.T) {
	w := start(t, simulator.Options{})
	page := w.browser().get("/").body
	for _, want := range []string{
		"AIHubMix simulator – not the real service",
		"user123", "$750.00", "maria", "$3.20", "张伟", "$0.00",
		simulator.AuthorizePath, simulator.TokenPath, simulator.UserInfoPath,
		simulator.TopUpPath, simulator.RevokePath, simulator.AppsPath,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the index page lacks %q", want)
		}
	}
}

func TestIndexPageSignsInAndOut(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.browser()
	answer := b.submit(simulator.LoginPath, map[string][]string{"user": {"67890"}})
	w.wantStatus(answer, http.StatusSeeOther)
	if page := b.get("/").body; !strings.Contains(page, "signed in as <strong>maria") {
		t.Error("the index page does not say who is signed in")
	}
	b.submit(simulator.LogoutPath, nil)
	if page := b.get("/").body; strings.Contains(page, "signed in as") {
		t.Error("signing out left the user signed in")
	}
}

func TestEveryPageForbidsScriptsFramesAndForeignResources(t *testing.T) {
	w := start(t, simulator.Options{})
	signedIn := w.signedInBrowser("12345")
	for name, page := range map[string]reply{
		"index":   w.browser().get("/"),
		"error":   w.browser().get(simulator.AuthorizePath),
		"sign in": w.browser().get(authorizePath()),
		"consent": signedIn.get(authorizePath("auto_authorize", "")),
		"top up":  signedIn.get(simulator.TopUpPagePath),
		"refusal": w.browser().get(simulator.TopUpPagePath),
	} {
		policy := page.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "style-src 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s page: policy %q lacks %q", name, policy, want)
			}
		}
		if !strings.Contains(page.Header.Get("Content-Type"), "text/html; charset=utf-8") {
			t.Errorf("%s page: content type %q", name, page.Header.Get("Content-Type"))
		}
		for _, bad := range []string{"<script", "http://", "https://", "style=", "ZgotmplZ"} {
			if strings.Contains(page.body, bad) {
				t.Errorf("%s page contains %q", name, bad)
			}
		}
		if !strings.Contains(page.body, "not the real service") {
			t.Errorf("%s page does not say that it is a simulator", name)
		}
	}
}

// Browsers apply form-action to the redirects that follow a form. With
// form-action the Allow button would never reach the client.
func TestPagesWhoseFormsLeadToTheClientHaveNoFormAction(t *testing.T) {
	w := start(t, simulator.Options{})
	signedIn := w.signedInBrowser("12345")
	for name, test := range map[string]struct {
		page reply
		want bool
	}{
		"sign in": {w.browser().get(authorizePath()), false},
		"consent": {signedIn.get(authorizePath("auto_authorize", "")), false},
		"top up":  {signedIn.get(simulator.TopUpPagePath), true},
	} {
		has := strings.Contains(test.page.Header.Get("Content-Security-Policy"), "form-action")
		if has != test.want {
			t.Errorf("%s page: form-action is %v, want %v", name, has, test.want)
		}
	}
}

func TestStyleSheetIsServedAsCSS(t *testing.T) {
	w := start(t, simulator.Options{})
	answer := w.browser().get("/style.css")
	w.wantStatus(answer, http.StatusOK)
	if got := answer.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/css") {
		t.Errorf("content type %q", got)
	}
	if !strings.Contains(answer.body, "prefers-color-scheme: dark") {
		t.Error("the style sheet has no dark colours")
	}
}
