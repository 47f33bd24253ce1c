package command

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

func TestProviderCommandServesWhatItPrints(t *testing.T) {
	r := commands.Start(t, "Ctrl-C ends it", "provider", "--listen", "127.0.0.1:0",
		"--client-id", "my-client", "--client-secret", "my-secret",
		"--redirect-uri", "http://127.0.0.1:7777/cb", "--redirect-uri", "https://app.example.com/cb",
		"--auto-login", "maria", "--fault", "userinfo=503;times:1")
	origin := r.Between("A simulated AIHubMix is at ", "\n")
	for _, want := range []string{
		origin + "/api/oauth2/authorize", origin + "/api/oauth2/token", origin + "/api/oauth2/userinfo",
		"my-client", "my-secret", "http://127.0.0.1:7777/cb", "https://app.example.com/cb", "user123", "userinfo=503;times:1",
	} {
		if !strings.Contains(r.Out.String(), want) {
			t.Errorf("%q is not printed:\n%s", want, r.Out)
		}
	}

	client := oauth.NewHTTPClient(5 * time.Second)
	defer client.CloseIdleConnections()
	res, err := client.Get(origin + "/api/oauth2/authorize?" + url.Values{
		"client_id": {"my-client"}, "redirect_uri": {"https://app.example.com/cb"},
		"response_type": {"code"}, "state": {"s"}, "auto_authorize": {"true"},
	}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if to := res.Header.Get("Location"); res.StatusCode != http.StatusFound || !strings.HasPrefix(to, "https://app.example.com/cb?code=") {
		t.Errorf("authorization endpoint: status %d, Location %q; want 302 to the callback with a code", res.StatusCode, to)
	}
	for _, want := range []int{http.StatusServiceUnavailable, http.StatusUnauthorized} {
		res, err := client.Get(origin + "/api/oauth2/userinfo")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("userinfo: got %d, want %d", res.StatusCode, want)
		}
	}

	r.Stop()
	if err := r.Ended(); err != nil {
		t.Error(err)
	}
	if res, err := client.Get(origin); err == nil {
		res.Body.Close()
		t.Error("the provider still answers")
	}
}

func TestProviderCommandEndsWhileARequestHangs(t *testing.T) {
	r := commands.Start(t, "Ctrl-C ends it", "provider", "--listen", "127.0.0.1:0", "--fault", "userinfo=hang")
	origin := r.Between("A simulated AIHubMix is at ", "\n")
	cut := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		res, err := http.Get(origin + "/api/oauth2/userinfo")
		if err == nil {
			res.Body.Close()
		}
		cut <- err
	}()
	<-started
	r.Stop()
	if err := r.Ended(); err != nil {
		t.Error(err)
	}
	if err := <-cut; err == nil {
		t.Error("the request was answered when the provider stopped, want a broken connection")
	}
}

func TestBadProviderFlagsAreNamed(t *testing.T) {
	for _, test := range []struct{ flag, value, want string }{
		{"--access-lifetime", "soon", `invalid argument "soon" for "--access-lifetime" flag`},
		{"--access-lifetime", "0s", "--access-lifetime: 0s is less than 1s"},
		{"--access-lifetime", "-5m", "--access-lifetime: "},
		{"--auto-login", "nobody", `--auto-login: there is no user "nobody"; there are user123`},
		{"--fault", "token", `--fault: fault "token": want endpoint=fault`},
		{"--fault", "tokn=503", `--fault: fault "tokn=503": unknown endpoint`},
		{"--client-id", "", "--client-id: "},
		{"--client-id", "a b", "--client-id: "},
		{"--client-secret", "a{b}", "--client-secret: "},
		{"--redirect-uri", "http://app.example.com/cb", "--redirect-uri: must be https"},
		{"--redirect-uri", "/cb", "--redirect-uri: is not an absolute"},
	} {
		r := commands.Run("provider", "--listen", "127.0.0.1:0", test.flag, test.value)
		if r.Err == nil || !strings.Contains(r.Err.Error(), test.want) {
			t.Errorf("%s %s: got %v, want %s", test.flag, test.value, r.Err, test.want)
		}
	}
}
