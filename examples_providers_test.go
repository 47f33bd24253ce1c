package tollgate_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// smallProvider imitates one of the provider servers in examples/. It has no sign-in page: it
// redirects every authorization request back with a code.
type smallProvider struct {
	*httptest.Server
	mu sync.Mutex
	// asked are the queries of the authorization endpoint.
	asked []url.Values
	// codes and refreshTokens are those that are not spent; access are those that are valid.
	codes, refreshTokens, access map[string]bool
	given                        int
}

func newSmallProvider(t *testing.T, routes func(*smallProvider) map[string]http.HandlerFunc) *smallProvider {
	t.Helper()
	p := &smallProvider{codes: map[string]bool{}, refreshTokens: map[string]bool{}, access: map[string]bool{}}
	mux := http.NewServeMux()
	for pattern, serve := range routes(p) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			defer p.mu.Unlock()
			serve(w, r)
		})
	}
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// give makes a token that is noted in a table.
func (p *smallProvider) give(table map[string]bool, prefix string) string {
	p.given++
	token := fmt.Sprintf("%s%d", prefix, p.given)
	table[token] = true
	return token
}

func (p *smallProvider) authorize(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	p.asked = append(p.asked, query)
	back := url.Values{"code": {p.give(p.codes, "code_")}, "state": {query.Get("state")}}
	w.Header().Set("Location", query.Get("redirect_uri")+"?"+back.Encode())
	w.WriteHeader(http.StatusFound)
}

// spend takes a code or a refresh token, once, from the client of the tests.
func (p *smallProvider) spend(r *http.Request, table map[string]bool, name string) bool {
	value := r.PostFormValue(name)
	defer delete(table, value)
	return table[value] && r.PostFormValue("client_id") == "client_abc" && r.PostFormValue("client_secret") == "secret_xyz"
}

func (p *smallProvider) lastAsked() url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[len(p.asked)-1]
}

// gitHub answers as GitHub does for OAuth apps: in a form unless JSON is asked for,
// errors with status 200, a numeric id, and no refresh token.
func gitHub(onlyForms bool) func(p *smallProvider) map[string]http.HandlerFunc {
	return func(p *smallProvider) map[string]http.HandlerFunc {
		answer := func(w http.ResponseWriter, r *http.Request, members map[string]string) {
			if !onlyForms && r.Header.Get("Accept") == "application/json" {
				json.NewEncoder(w).Encode(members)
				return
			}
			form := url.Values{}
			for name, value := range members {
				form.Set(name, value)
			}
			w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
			w.Write([]byte(form.Encode()))
		}
		return map[string]http.HandlerFunc{
			"GET /login/oauth/authorize": p.authorize,
			"POST /login/oauth/access_token": func(w http.ResponseWriter, r *http.Request) {
				if !p.spend(r, p.codes, "code") {
					answer(w, r, map[string]string{"error": "bad_verification_code", "error_description": "The code passed is incorrect or expired."})
					return
				}
				answer(w, r, map[string]string{"access_token": p.give(p.access, "gho_"), "scope": "read:user", "token_type": "bearer"})
			},
			"GET /user": func(w http.ResponseWriter, r *http.Request) {
				if token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); !p.access[token] {
					w.WriteHeader(http.StatusUnauthorized)
					w.Write([]byte(`{"message":"Bad credentials"}`))
					return
				}
				w.Write([]byte(`{"login":"octocat","id":583231,"node_id":"MDQ6VXNlcjU4MzIzMQ==","email":null,"plan":{"name":"free"}}`))
			},
		}
	}
}

// dex answers as dex does: OpenID Connect's user information, tokens of five minutes,
// and 400 invalid_request for a refresh token that is spent.
func dex(p *smallProvider) map[string]http.HandlerFunc {
	refuse := func(w http.ResponseWriter, code, why string) {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": why})
	}
	return map[string]http.HandlerFunc{
		"GET /dex/auth": p.authorize,
		"POST /dex/token": func(w http.ResponseWriter, r *http.Request) {
			switch isRefresh := r.PostFormValue("grant_type") == "refresh_token"; {
			case isRefresh && !p.spend(r, p.refreshTokens, "refresh_token"):
				refuse(w, "invalid_request", "Refresh token is invalid or has already been claimed by another client.")
				return
			case !isRefresh && !p.spend(r, p.codes, "code"):
				refuse(w, "invalid_grant", "Invalid or expired code parameter.")
				return
			}
			json.NewEncoder(w).Encode(map[string]any{
				"access_token": p.give(p.access, "jwt"+strings.Repeat(".long", 300)), "token_type": "bearer", "expires_in": 299,
				"refresh_token": p.give(p.refreshTokens, "Ch"), "id_token": "ignored",
			})
		},
		"GET /dex/userinfo": func(w http.ResponseWriter, r *http.Request) {
			if token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); !p.access[token] {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Write([]byte(`{"iss":"https://dex.example.com/dex","sub":"CgNqb2U","aud":"client_abc","email":"joe@example.com","email_verified":true,"name":"Joe"}`))
		},
	}
}

// newExampleSite runs an example's Caddyfile, with its provider at the given address.
func newExampleSite(t *testing.T, example string, addresses ...string) *gatewaytest.Site {
	t.Helper()
	s := gatewaytest.New(t, gatewaytest.Options{})
	manualtest.SetEnv(t)
	t.Setenv("OAUTH_REDIRECT_URI", s.URL+"/oauth/callback")
	text := manualtest.ReadFile(t, "examples/"+example+"/Caddyfile")
	for _, replace := range [][2]string{{"app.example.com {", "http:// {"}, {"localhost:3000", s.Upstream.URL}} {
		if !strings.Contains(text, replace[0]) {
			t.Fatalf("%s is not in the example", replace[0])
		}
		text = strings.Replace(text, replace[0], replace[1], 1)
	}
	if replaced := strings.NewReplacer(addresses...).Replace(text); replaced == text {
		t.Fatalf("the example has none of the provider's addresses %q", addresses)
	} else {
		text = replaced
	}
	s.Caddyfile = "{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tstorage file_system " + t.TempDir() + "\n}\n" + text
	s.Load()
	return s
}

func TestExampleGitHubSignsInAndOut(t *testing.T) {
	for name, onlyForms := range map[string]bool{"JSON": false, "forms": true} {
		t.Run(name, func(t *testing.T) {
			p := newSmallProvider(t, gitHub(onlyForms))
			s := newExampleSite(t, "oauth2-github", "https://github.com", p.URL, "https://api.github.com", p.URL)
			b := s.NewBrowser().SignIn()
			seen := b.Get("/").Seen(t).Header
			if seen.Get("X-User-Id") != "583231" || seen.Get("X-User-Name") != "octocat" || seen.Get("X-User-Email") != "" || seen.Get("X-User-Balance-State") != "unknown" {
				t.Errorf("the upstream saw %v", seen)
			}
			query := p.lastAsked()
			if query.Get("scope") != "read:user" || query.Has("auto_authorize") || query.Has("prompt") || query.Get("code_challenge") == "" {
				t.Errorf("the provider was asked %v", query)
			}
			s.Clock.Advance(29 * 24 * time.Hour)
			if a := b.Get("/"); a.StatusCode != http.StatusOK {
				t.Errorf("after 29 days: got %d, want 200", a.StatusCode)
			}
			if a := b.Get("/oauth/topup"); a.StatusCode != http.StatusNotFound {
				t.Errorf("topup: got %d, want 404", a.StatusCode)
			}

			b.Send("POST", "/oauth/logout", nil)
			b.SignIn()
			if got := p.lastAsked().Get("prompt"); got != "select_account" {
				t.Errorf("the first sign-in after a logout: prompt is %q", got)
			}

			// The user revokes the app at GitHub.
			p.mu.Lock()
			clear(p.access)
			p.mu.Unlock()
			s.Clock.Advance(20 * time.Minute)
			b.Get("/")
			if a := b.Visit("/"); a.StatusCode != http.StatusFound {
				t.Errorf("after the token was revoked: got %d, want 302", a.StatusCode)
			}
		})
	}
}

func TestExampleGitHubRefusesASpentCode(t *testing.T) {
	p := newSmallProvider(t, gitHub(true))
	s := newExampleSite(t, "oauth2-github", "https://github.com", p.URL, "https://api.github.com", p.URL)
	b := s.NewBrowser()
	provider := b.Visit(b.Visit("/oauth/start").Location())
	p.mu.Lock()
	clear(p.codes)
	p.mu.Unlock()
	a := b.Visit(provider.Location())
	if a.StatusCode != http.StatusBadRequest || len(b.Cookies()) != 0 {
		t.Errorf("got %d, cookies %v", a.StatusCode, b.Cookies())
	}
}

func TestExampleDexRefreshesAndSurvivesLostTokens(t *testing.T) {
	p := newSmallProvider(t, dex)
	s := newExampleSite(t, "oauth2-dex", "https://dex.example.com", p.URL)
	b := s.NewBrowser().SignIn()
	seen := b.Get("/").Seen(t).Header
	if seen.Get("X-User-Id") != "CgNqb2U" || seen.Get("X-User-Name") != "Joe" || seen.Get("X-User-Email") != "joe@example.com" {
		t.Errorf("the upstream saw %v", seen)
	}
	if query := p.lastAsked(); query.Get("scope") != "openid profile email offline_access" || query.Has("auto_authorize") || query.Has("prompt") {
		t.Errorf("the provider was asked %v", query)
	}
	for range 3 {
		s.Clock.Advance(6 * time.Minute)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("after the token's end: got %d, want 200", a.StatusCode)
		}
	}

	// dex loses its storage, and gets it back from a backup.
	p.mu.Lock()
	kept := p.refreshTokens
	p.refreshTokens = map[string]bool{}
	p.mu.Unlock()
	s.Clock.Advance(6 * time.Minute)
	if a := b.Visit("/page"); a.StatusCode != http.StatusFound || a.Location() != "/oauth/start?return_to=%2Fpage" {
		t.Errorf("without its storage: got %d to %q", a.StatusCode, a.Location())
	}
	p.mu.Lock()
	p.refreshTokens = kept
	p.mu.Unlock()
	s.Clock.Advance(backOffRefused + time.Second)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with its storage: got %d, want 200", a.StatusCode)
	}
}

// TestSigningOutIsNotUndoneSilently: dex still knows the person.
func TestSigningOutIsNotUndoneSilently(t *testing.T) {
	p := newSmallProvider(t, dex)
	s := newExampleSite(t, "oauth2-dex", "https://dex.example.com", p.URL)
	b := s.NewBrowser().SignIn()
	for _, c := range []struct{ setting, name, value string }{
		{"", "prompt", "login"},
		{"logout_param prompt select_account\nlogout_param max_age 0\nauthorize_param prompt none", "prompt", "select_account"},
		{"logout_param off", "prompt", ""},
		{"logout_param off\nauto_authorize on", "auto_authorize", ""},
	} {
		with := strings.Replace(s.Caddyfile, "client_id", c.setting+"\nclient_id", 1)
		s.Caddyfile, with = with, s.Caddyfile
		s.Load()
		b.Send("POST", "/oauth/logout", nil)
		b.SignIn()
		if got := p.lastAsked().Get(c.name); got != c.value {
			t.Errorf("%q: the first sign-in after a logout sends %s=%q, want %q", c.setting, c.name, got, c.value)
		}
		b.Visit(b.Visit("/oauth/start").Location())
		if got := p.lastAsked(); c.setting == "" && got.Has("prompt") || strings.Contains(c.setting, "auto") && got.Get("auto_authorize") != "true" {
			t.Errorf("%q: the second sign-in sends %v", c.setting, got)
		}
		s.Caddyfile = with
	}
}
