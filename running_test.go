package tollgate_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestNoSecretIsEverLogged(t *testing.T) {
	r := gatewaytest.Run(t, gatewaytest.RunOptions{})
	secrets := map[string]string{}
	remember := func(what, value string) {
		if len(value) > 3 {
			secrets[value] = what
			secrets[url.QueryEscape(value)] = what
		}
	}
	remember("the client secret", gatewaytest.ClientSecret)
	remember("the configured secret", gatewaytest.Secret)

	b := r.NewBrowser()
	start := b.Visit("/oauth/start?return_to=/page")
	authorize, _ := url.Parse(start.Location())
	remember("the state", authorize.Query().Get("state"))
	callback := b.Visit(start.Location()).Location()
	u, _ := url.Parse(callback)
	remember("the code", u.Query().Get("code"))
	for name, value := range b.Cookies() {
		remember("the cookie "+name, value)
	}
	for _, method := range []string{"HEAD", "POST", "PUT"} {
		b.Send(method, callback, nil)
	}
	b.Visit(strings.Replace(callback, "/oauth/", "/oauth//", 1))
	b.Visit(strings.Replace(callback, "/oauth/", "/x/..;/oauth/", 1))
	b.Visit(callback)
	b.Visit(callback)
	b.Get("/page")
	for name, value := range b.Cookies() {
		remember("the cookie "+name, value)
	}
	b.Get("/oauth/userinfo")
	r.Provider.ExpireAccessTokens()
	b.Send("POST", "/oauth/refresh", nil)
	b.Visit("/oauth/topup")
	b.Get("/")
	r.Provider.SetFault(simulator.Token, simulator.Fault{Status: 500, Body: `{"error":"x","access_token":"leaked-token-of-the-answer"}`})
	remember("the provider's answer", "leaked-token-of-the-answer")
	r.Provider.ExpireAccessTokens()
	time.Sleep(tollgate.RereadInterval)
	b.Send("POST", "/oauth/refresh", nil)
	other := r.NewBrowser()
	other.Visit(other.Authorize(""))
	other.Visit(other.Authorize("") + "&iss=https://evil.example")
	r.Provider.ClearFaults()
	b.Visit("/oauth/callback?code=made-up-code-0123456789&state=made-up-state-0123456789")
	remember("a made-up code", "made-up-code-0123456789")
	remember("a made-up state", "made-up-state-0123456789")
	r.Upstream.Close()
	b.Get("/page")
	b.Send("POST", "/oauth/logout", nil)
	for _, endpoint := range []simulator.Endpoint{simulator.Exchange, simulator.Refresh, simulator.UserInfo} {
		for _, request := range r.Provider.Requests(endpoint) {
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
		text, err := os.ReadFile(filepath.Join(r.Logs, name))
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
	r := gatewaytest.Run(t, gatewaytest.RunOptions{Access: 5 * time.Second})
	var browsers []*gatewaytest.Browser
	for range 10 {
		browsers = append(browsers, r.NewBrowser().SignIn())
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
				if status := getPatiently(b, r.URL+"/"); status == http.StatusOK {
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
		r.Reload()
	}
	close(stop)
	load.Wait()
	if refused.Load() != 0 || served.Load() == 0 {
		t.Errorf("%d requests were refused, %d served", refused.Load(), served.Load())
	}
	if n := r.Provider.Count(simulator.Refresh); n < len(browsers) {
		t.Errorf("only %d refreshes: the test did not test", n)
	}
	if n := r.Provider.DoubleSpends(); n != 0 {
		t.Errorf("%d refresh tokens were spent twice", n)
	}
}

// getPatiently repeats a request whose connection was reset before any answer, as
// browsers do. Caddy itself resets some with each reload, with or without tollgate:
// the ones that wait in the old listener's queue when the new one takes over.
func getPatiently(b *gatewaytest.Browser, target string) int {
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
