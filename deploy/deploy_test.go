// Package deploy_test checks what operators copy: the configurations, the manifests, the
// unit and the package. `make deploy-check` runs the slower checks with more tools.
package deploy_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// asCaddy makes the test binary behave as the program caddy. The test of the package needs
// one that prints man pages.
const asCaddy = "TOLLGATE_DEPLOY_TEST_AS_CADDY"

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	gatewaytest.Main(m)
}

// find returns the first group of the first match, and fails if there is none.
func find(t *testing.T, file, pattern string) string {
	t.Helper()
	match := regexp.MustCompile("(?m)" + pattern).FindStringSubmatch(manualtest.ReadFile(t, file))
	if match == nil {
		t.Fatalf("%s has no %s", file, pattern)
	}
	return match[1]
}

func TestGatewayCaddyfilesLoad(t *testing.T) {
	manualtest.SetEnv(t)
	secret := t.TempDir() + "/tollgate.secret"
	if err := os.WriteFile(secret, []byte(keys.NewSecret()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"container/Caddyfile", "debian/Caddyfile"} {
		text := manualtest.ReadFile(t, file)
		wantFormatted(t, file, text)
		_, handlers, err := gatewaytest.Provision(strings.ReplaceAll(text, "/etc/tollgate/tollgate.secret", secret))
		if err != nil || len(handlers) != 1 {
			t.Errorf("%s: %d handlers, want 1: %v", file, len(handlers), err)
		}
		for _, h := range handlers {
			h.Cleanup()
		}
	}
}

// TestGatewaysStopWhileStreamsAreOpen: without a grace period Caddy waits for the end of every
// stream, until the service manager kills Caddy. A refresh that is under way is then lost.
func TestGatewaysStopWhileStreamsAreOpen(t *testing.T) {
	for _, file := range []string{"container/Caddyfile", "debian/Caddyfile"} {
		adapted, err := gatewaytest.Adapt(manualtest.ReadFile(t, file))
		if err != nil {
			t.Fatal(err)
		}
		var config struct {
			Apps struct {
				HTTP struct {
					Grace time.Duration `json:"grace_period"`
				}
			}
		}
		if err := json.Unmarshal(adapted, &config); err != nil {
			t.Fatal(err)
		}
		// systemd and Compose kill after 30 seconds.
		if got := config.Apps.HTTP.Grace; got <= 0 || got > 20*time.Second {
			t.Errorf("%s: the grace period is %v, want one of at most 20s", file, got)
		}
	}
}

func TestFrontCaddyfileAdapts(t *testing.T) {
	text := manualtest.ReadFile(t, "container/front.Caddyfile")
	wantFormatted(t, "container/front.Caddyfile", text)
	if _, err := gatewaytest.Adapt(text); err != nil {
		t.Error(err)
	}
}

func wantFormatted(t *testing.T, file, text string) {
	t.Helper()
	if string(caddyfile.Format([]byte(text))) != text {
		t.Errorf("%s is not formatted: run `caddy fmt --overwrite`", file)
	}
}

func TestContainersHaveOneCaddyfile(t *testing.T) {
	want := manualtest.ReadFile(t, "container/Caddyfile")
	for _, file := range []string{"kubernetes/Caddyfile", "helm/tollgate/files/Caddyfile"} {
		if manualtest.ReadFile(t, file) != want {
			t.Errorf("%s differs from container/Caddyfile: copy it", file)
		}
	}
}

func TestVersionIsTheNewestOfTheChangelog(t *testing.T) {
	want := find(t, "../CHANGELOG.md", `^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$`)
	for file, pattern := range map[string]string{
		"container/Dockerfile":          `^ARG VERSION=(.+)$`,
		"container/compose.yaml":        `image: tollgate:\$\{TOLLGATE_VERSION:-(.+)\}$`,
		"kubernetes/kustomization.yaml": `newName: tollgate\n +newTag: (.+)$`,
		"helm/tollgate/Chart.yaml":      `^appVersion: (.+)$`,
	} {
		if got := find(t, file, pattern); got != want {
			t.Errorf("%s has version %s, want %s of the changelog", file, got, want)
		}
	}
}

// TestImageHasNoShellAndNoRoot reads the last stage of the Dockerfile.
func TestImageHasNoShellAndNoRoot(t *testing.T) {
	_, last, _ := strings.Cut(manualtest.ReadFile(t, "container/Dockerfile"), "\nFROM scratch\n")
	if last == "" {
		t.Fatal("the last stage is not FROM scratch")
	}
	for _, line := range strings.Split(last, "\n") {
		if word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); slices.Contains([]string{"RUN", "CMD", "ENTRYPOINT", "SHELL"}, word) && !strings.HasPrefix(rest, "[") {
			t.Errorf("%q needs a shell", line)
		}
	}
	if user := regexp.MustCompile(`(?m)^USER (.+)$`).FindStringSubmatch(last); user == nil || user[1] != "65532:65532" {
		t.Errorf("got USER %q, want 65532:65532, as in the manifests of Kubernetes", user)
	}
}
