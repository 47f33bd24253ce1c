package tollgate

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/simulator"
)

// running is a Caddy that really runs: with its own listeners, logs and reloads.
// There is one in a process at a time.
type running struct {
	*site
	caddyfile string
	logs      string // the folder
	storage   string // Caddy's, a folder
}

// runningOptions are what a test wants otherwise than usual.
type runningOptions struct {
	access time.Duration // the life of access tokens; default 2h
	admin  string        // the address of the admin API; default off
	// inTollgate are more lines for that block.
	inTollgate string
}

func runCaddy(t *testing.T, options runningOptions) *running {
	t.Helper()
	r := prepareCaddy(t, options)
	r.start()
	return r
}

// prepareCaddy writes the Caddyfile, which a test may change before the start.
func prepareCaddy(t *testing.T, options runningOptions) *running {
	t.Helper()
	address := freeAddress()
	s := &site{t: t, url: "http://" + address, upstream: newUpstream(t, nil)}
	s.provider = simulator.New(simulator.Options{
		AutoLogin: "user123", AllowLoginHint: true, AccessLifetime: cmp.Or(options.access, 2*time.Hour),
		Clients: []simulator.Client{{ID: testClientID, Secret: testClientSecret, RedirectURIs: []string{s.url + "/oauth/callback"}}},
	})
	provider := httptest.NewServer(s.provider)
	t.Cleanup(provider.Close)
	s.providerURL = provider.URL

	r := &running{site: s, logs: t.TempDir(), storage: t.TempDir()}
	r.caddyfile = fmt.Sprintf(`{
	admin %s
	auto_https off
	persist_config off
	storage file_system %s
	grace_period 5s
	log default {
		output file %s
		level DEBUG
	}
}
http://%s {
	bind 127.0.0.1
	log {
		output file %s
	}
	tollgate {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
			timeout 1s
		}
		redirect_uri http://%s/oauth/callback
		secret %s
		%s
	}
	reverse_proxy %s
}
`, cmp.Or(options.admin, "off"), r.storage, filepath.Join(r.logs, "default.log"), address, filepath.Join(r.logs, "access.log"),
		s.providerURL, testClientID, testClientSecret, address, testSecret, options.inTollgate, s.upstream.URL)
	return r
}

func (r *running) start() {
	r.t.Helper()
	r.reload()
	r.t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			r.t.Error(err)
		}
	})
}

func (r *running) reload() {
	r.t.Helper()
	config, err := adapt(r.caddyfile)
	if err != nil {
		r.t.Fatal(err)
	}
	provisioning.Lock()
	defer provisioning.Unlock()
	if err := caddy.Load(config, true); err != nil {
		r.t.Fatal(err)
	}
}

func TestNoSecretIsEverLogged(t *testing.T) {
	r := runCaddy(t, runningOptions{})
	secrets := map[string]string{}
	remember := func(what, value string) {
		if len(value) > 3 {
			secrets[value] = what
			secrets[url.QueryEscape(value)] = what
		}
	}
	remember("the client secret", testClientSecret)
	remember("the configured secret", testSecret)

	b := r.newBrowser()
	start := b.visit("/oauth/start?return_to=/page")
	authorize, _ := url.Parse(start.location())
	remember("the state", authorize.Query().Get("state"))
	callback := b.visit(start.location()).location()
	u, _ := url.Parse(callback)
	remember("the code", u.Query().Get("code"))
	for name, value := range b.cookies() {
		remember("the cookie "+name, value)
	}
	for _, method := range []string{"HEAD", "POST", "PUT"} {
		b.do(method, callback, nil)
	}
	b.visit(strings.Replace(callback, "/oauth/", "/oauth//", 1))
	b.visit(strings.Replace(callback, "/oauth/", "/x/..;/oauth/", 1))
	b.visit(callback)
	b.visit(callback)
	b.Get("/page")
	for name, value := range b.cookies() {
		remember("the cookie "+name, value)
	}
	b.Get("/oauth/userinfo")
	r.provider.ExpireAccessTokens()
	b.do("POST", "/oauth/refresh", nil)
	b.visit("/oauth/topup")
	b.Get("/")
	r.provider.SetFault(simulator.Token, simulator.Fault{Status: 500, Body: `{"error":"x","access_token":"leaked-token-of-the-answer"}`})
	remember("the provider's answer", "leaked-token-of-the-answer")
	r.provider.ExpireAccessTokens()
	time.Sleep(RereadInterval)
	b.do("POST", "/oauth/refresh", nil)
	other := r.newBrowser()
	other.visit(other.authorize(""))
	other.visit(other.authorize("") + "&iss=https://evil.example")
	r.provider.ClearFaults()
	b.visit("/oauth/callback?code=made-up-code-0123456789&state=made-up-state-0123456789")
	remember("a made-up code", "made-up-code-0123456789")
	remember("a made-up state", "made-up-state-0123456789")
	r.upstream.Close()
	b.Get("/page")
	b.do("POST", "/oauth/logout", nil)
	for _, endpoint := range []simulator.Endpoint{simulator.Exchange, simulator.Refresh, simulator.UserInfo} {
		for _, request := range r.provider.Requests(endpoint) {
			for _, name := range []string{"code", "code_verifier", "refresh_token"} {
				remember("a "+name, request.Form.Get(name))
			}
			remember("an access token", strings.TrimPrefix(request.Header.Get("Authorization"), "Bearer "))
		}
	}
	if len(secrets) < 15 {
		t.Fatalf("only %d secrets were planted", len(secrets))
	}

	caddy.Stop() // the logs are written
	for _, name := range []string{"default.log", "access.log"} {
		text, err := os.ReadFile(filepath.Join(r.logs, name))
		if err != nil {
			t.Fatal(err)
		}
		for secret, what := range secrets {
			if at := strings.Index(string(text), secret); at >= 0 {
				line := string(text)[strings.LastIndexByte(string(text)[:at], '\n')+1:]
				line, _, _ = strings.Cut(line, "\n")
				t.Errorf("%s holds %s: %.600s", name, what, line)
			}
		}
		for _, want := range map[string][]string{
			"default.log": {`"msg":"login"`, `"msg":"logout"`, `"msg":"refresh"`, `"msg":"refresh_failed"`, `"msg":"login_failed"`, `"endpoint":"callback"`, `"endpoint":"start"`, `"client_ip":"127.0.0.1"`},
			"access.log":  {`"user_id":"12345"`, `"uri":"/page"`},
		}[name] {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
	}
}

func TestARealReloadEverySecondUnderLoadLosesNothing(t *testing.T) {
	// Tokens of five seconds are refreshed after four.
	r := runCaddy(t, runningOptions{access: 5 * time.Second})
	var browsers []*visitor
	for range 10 {
		browsers = append(browsers, r.newBrowser().signIn())
	}
	var refused, served atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, b := range browsers {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status := getPatiently(b, r.url+"/"); status == http.StatusOK {
					served.Add(1)
				} else {
					refused.Add(1)
					t.Errorf("a request was answered with %d", status)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	for range 7 {
		time.Sleep(time.Second)
		r.reload()
	}
	close(stop)
	load.Wait()
	if refused.Load() != 0 || served.Load() == 0 {
		t.Errorf("%d requests were refused, %d served", refused.Load(), served.Load())
	}
	if n := r.provider.Count(simulator.Refresh); n < len(browsers) {
		t.Errorf("only %d refreshes: the test did not test", n)
	}
	if n := r.provider.DoubleSpends(); n != 0 {
		t.Errorf("%d refresh tokens were spent twice", n)
	}
}

// getPatiently repeats a request whose connection was reset before any answer, as
// browsers do. Caddy itself resets some with each reload, with or without tollgate:
// the ones that wait in the old listener's queue when the new one takes over.
func getPatiently(b *visitor, target string) int {
	for range 20 {
		res, err := b.Client.Get(target)
		if err == nil {
			res.Body.Close()
			return res.StatusCode
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}
