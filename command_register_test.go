package tollgate_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// TestPrintedCaddyfileOfRegisterAppLoads: every redirect URI that the command registers is
// one that the gateway accepts.
func TestPrintedCaddyfileOfRegisterAppLoads(t *testing.T) {
	t.Setenv("AIHUBMIX_DEVELOPER_TOKEN", "developer-token")
	provider := httptest.NewServer(simulator.New(simulator.Options{DeveloperToken: "developer-token"}))
	t.Cleanup(provider.Close)
	for _, uri := range []string{
		"https://app.example.com/cb", "https://app.example.com:8443/auth/callback", "http://127.0.0.1:8080/oauth/callback",
		"http://localhost:8080/cb", "http://[::1]:8080/cb", "https://APP.example.com/Some_Path-1.2~x",
	} {
		envFile := filepath.Join(t.TempDir(), "app.env")
		got := commands.Run("register-app", "--name", "My App", "--redirect-uri", uri, "--base-url", provider.URL, "--env-file", envFile)
		if got.Err != nil {
			t.Errorf("%s: got %v", uri, got.Err)
			continue
		}
		env, err := os.ReadFile(envFile)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(env)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			t.Setenv(name, strings.Trim(value, "'")) // quoted as for a shell
		}
		_, handlers, err := gatewaytest.Provision("{\n\tadmin off\n\tauto_https off\n\tstorage file_system " + t.TempDir() + "\n}\n" + got.Out)
		if err != nil || len(handlers) != 1 {
			t.Errorf("%s: got %d handlers, %v, want one:\n%s", uri, len(handlers), err, got.Out)
		}
		for _, h := range handlers {
			if err := h.Cleanup(); err != nil {
				t.Error(err)
			}
		}
	}
}
