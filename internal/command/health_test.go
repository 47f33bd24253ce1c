package command

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
)

func TestHealthRecognisesOtherServers(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"a Caddy without this site": {func(http.ResponseWriter, *http.Request) {}, "does not come from tollgate"},
		"a web page":                {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, "does not come from tollgate"},
		"another status":            {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"status":"starting"}`)) }, "does not come from tollgate"},
		"not ready":                 {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "status 503"},
		"a redirect":                {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "status 302"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			commandtest.WantError(t, commands.Run("health", server.URL+"/oauth/health"), c.want)
		})
	}
}

func TestHealthSendsTheHostOfTheURLToTheAddressOfConnect(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "app.example.com" || r.URL.Path != "/oauth/ready" {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Write([]byte(`{"status":"ok"}`))
	}))
	defer server.Close()
	address := server.Listener.Addr().String()
	commandtest.WantOutput(t, commands.Run("health", "http://app.example.com/oauth/ready", "--connect", address), "ok\n", "")
	commandtest.WantError(t, commands.Run("health", "http://other.example.com/oauth/ready", "--connect", address), "status 404")
}

func TestHealthGivesUpAfterItsTimeout(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	commandtest.WantError(t, commands.Run("health", server.URL, "--timeout", "50ms"), "deadline exceeded")
}

func TestHealthNamesAMistakenArgument(t *testing.T) {
	const url = "the argument must be the URL of the endpoint"
	for _, c := range []struct {
		want string
		args []string
	}{
		{"accepts 1 arg(s)", nil},
		{url, []string{"127.0.0.1:8080"}},
		{url, []string{"/oauth/health"}},
		{url, []string{"ftp://127.0.0.1/"}},
		{url, []string{"http://user:password@127.0.0.1/oauth/health"}},
		{"--connect must be an address with a port", []string{"http://127.0.0.1/oauth/health", "--connect", "127.0.0.1"}},
	} {
		commandtest.WantError(t, commands.Run(append([]string{"health"}, c.args...)...), c.want)
	}
}
