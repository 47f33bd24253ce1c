package simulator_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

const (
	clientID     = "client_test"
	clientSecret = "secret_test with % and ü" // every encoding mistake shows
	publicID     = "client_public"
	otherID      = "client_other"
	redirectURI  = "https://app.example.com/oauth/callback"
	userID       = 12345
)

// world is a running simulator with the data that tests need.
type world struct {
	*simulator.Provider
	t   *testing.T
	url string
}

// start runs a simulator with three clients over real HTTP.
func start(t *testing.T, options simulator.Options) *world {
	t.Helper()
	options.Clients = append(options.Clients,
		simulator.Client{ID: clientID, Secret: clientSecret, Name: "Test App", RedirectURIs: []string{redirectURI, redirectURI + "?tenant=7"}},
		simulator.Client{ID: publicID, Name: "Public App", RedirectURIs: []string{redirectURI}},
		simulator.Client{ID: otherID, Secret: "other", Name: "Other App", RedirectURIs: []string{redirectURI}},
	)
	p := simulator.New(options)
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return &world{Provider: p, t: t, url: server.URL}
}

// autoLogin are the options of tests that are not about signing in.
func autoLogin() simulator.Options {
	return simulator.Options{AutoLogin: "user123"}
}

// clock is a clock that moves only when a test moves it.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// reply is a response, read to its end.
type reply struct {
	*http.Response
	body string
}

// json reads the body as an object.
func (a reply) json(t *testing.T) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(a.body), &object); err != nil {
		t.Fatalf("no JSON object: %v\n%s", err, a.body)
	}
	return object
}

// location returns where a redirect leads, without its query, and the query.
func (a reply) location(t *testing.T) (string, url.Values) {
	t.Helper()
	u, err := url.Parse(a.Header.Get("Location"))
	if err != nil || a.Header.Get("Location") == "" {
		t.Fatalf("no redirect: %s\n%s", a.Status, a.body)
	}
	query := u.Query()
	u.RawQuery = ""
	return u.String(), query
}

// browser is a client with cookies that does not follow redirects.
type browser struct {
	*http.Client
	w *world
}

func (w *world) browser() *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{w: w, Client: &http.Client{
		Jar:           jar,
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// send does a request; path may be relative to the simulator.
func (b *browser) send(method, path string, header http.Header, body string) reply {
	b.w.t.Helper()
	answer, err := b.try(method, path, header, body)
	if err != nil {
		b.w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (b *browser) try(method, path string, header http.Header, body string) (reply, error) {
	return b.tryUntil(b.w.t.Context(), method, path, header, body)
}

// tryUntil is try with a client that leaves when ctx ends.
func (b *browser) tryUntil(ctx context.Context, method, path string, header http.Header, body string) (reply, error) {
	if strings.HasPrefix(path, "/") {
		path = b.w.url + path
	}
	r, err := http.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	maps.Copy(r.Header, header)
	response, err := b.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return reply{response, string(content)}, err
}

func (b *browser) get(path string) reply {
	b.w.t.Helper()
	return b.send("GET", path, nil, "")
}

// submit posts a form as a browser does from the simulator's own page.
func (b *browser) submit(path string, form url.Values) reply {
	b.w.t.Helper()
	header := formHeader()
	header.Set("Origin", b.w.url)
	return b.send("POST", path, header, form.Encode())
}

func formHeader() http.Header {
	return http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
}

// with returns values with these pairs set. An empty value removes a parameter.
func with(values url.Values, pairs ...string) url.Values {
	values = maps.Clone(values)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			delete(values, pairs[i])
		} else {
			values[pairs[i]] = []string{pairs[i+1]}
		}
	}
	return values
}

// authorizeQuery is a good authorize request, changed by pairs.
func authorizeQuery(pairs ...string) url.Values {
	return with(url.Values{
		"client_id":      {clientID},
		"redirect_uri":   {redirectURI},
		"response_type":  {"code"},
		"state":          {"state-1"},
		"auto_authorize": {"true"},
	}, pairs...)
}

func authorizePath(pairs ...string) string {
	return simulator.AuthorizePath + "?" + authorizeQuery(pairs...).Encode()
}

// code goes through an authorize request that needs no click.
func (w *world) code(pairs ...string) string {
	w.t.Helper()
	_, query := w.browser().get(authorizePath(pairs...)).location(w.t)
	if query.Get("code") == "" {
		w.t.Fatalf("no code: %v", query)
	}
	return query.Get("code")
}

// post sends a form to an endpoint without any client authentication.
func (w *world) post(path string, form url.Values) reply {
	w.t.Helper()
	return w.browser().send("POST", path, formHeader(), form.Encode())
}

func exchangeForm(code string, pairs ...string) url.Values {
	return with(url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {redirectURI},
		"client_id":     {clientID},
		"client_secret": {clientSecret},
	}, pairs...)
}

func refreshForm(token string, pairs ...string) url.Values {
	return with(url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {token},
		"client_id":     {clientID},
		"client_secret": {clientSecret},
	}, pairs...)
}

// tokenPair holds the tokens of a client.
type tokenPair struct{ access, refresh string }

func (w *world) pair(answer reply) tokenPair {
	w.t.Helper()
	if answer.StatusCode != http.StatusOK {
		w.t.Fatalf("token endpoint: %s %s", answer.Status, answer.body)
	}
	object := answer.json(w.t)
	access, _ := object["access_token"].(string)
	refresh, _ := object["refresh_token"].(string)
	return tokenPair{access, refresh}
}

func (w *world) exchange(code string, pairs ...string) reply {
	w.t.Helper()
	return w.post(simulator.TokenPath, exchangeForm(code, pairs...))
}

func (w *world) refresh(token string, pairs ...string) reply {
	w.t.Helper()
	return w.post(simulator.TokenPath, refreshForm(token, pairs...))
}

// login is a whole login, without a click.
func (w *world) login(pairs ...string) tokenPair {
	w.t.Helper()
	return w.pair(w.exchange(w.code(pairs...)))
}

func bearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

func (w *world) userInfo(access string) reply {
	w.t.Helper()
	return w.browser().send("GET", simulator.UserInfoPath, bearer(access), "")
}

// wantStatus and wantError fail the test if the reply is another one.
func (w *world) wantStatus(answer reply, status int) {
	w.t.Helper()
	if answer.StatusCode != status {
		w.t.Errorf("status %d, want %d\n%s", answer.StatusCode, status, answer.body)
	}
}

func (w *world) wantError(answer reply, status int, code string) {
	w.t.Helper()
	w.wantStatus(answer, status)
	if got := answer.json(w.t)["error"]; got != code {
		w.t.Errorf("error %v, want %s", got, code)
	}
}
