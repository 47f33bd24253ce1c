package tollgate_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/doctor"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

// nginxLines are lines for nginx's configuration in a document.
var nginxLines = regexp.MustCompile("(?s)```nginx\n(.*?)```")

// TestNginxWithDocumentedBuffersCarriesLargeSessions runs nginx in front of a gateway
// with the cookie store, without and with the lines of docs/sessions.md.
func TestNginxWithDocumentedBuffersCarriesLargeSessions(t *testing.T) {
	documented := nginxLines.FindStringSubmatch(manualtest.ReadFile(t, "docs/sessions.md"))
	if documented == nil {
		t.Fatal("docs/sessions.md holds no lines for nginx")
	}
	for _, size := range []int{2200, 2800, 3600} {
		for lines, want := range map[string]int{"": http.StatusBadGateway, documented[1]: http.StatusOK} {
			listen := porttest.Address()
			options := gatewaytest.Options{Front: "http://" + listen}
			options.Provider.AccessTokenSize = size
			s := gatewaytest.New(t, options)
			frontNginx(t, s, listen, lines)
			b := s.NewBrowser()
			b.SetCookie("application", strings.Repeat("x", 3000))
			if a := b.Follow("/"); a.StatusCode != want {
				t.Errorf("a token of %d bytes, with %q: the sign-in ends with %d, want %d", size, lines, a.StatusCode, want)
			} else if want == http.StatusOK && b.Get("/again").StatusCode != http.StatusOK {
				t.Errorf("a token of %d bytes, with %q: the next request fails", size, lines)
			}
		}
	}
}

// frontNginx runs nginx in front of a gateway, with more lines in its server block.
func frontNginx(t *testing.T, s *gatewaytest.Site, listen, lines string) {
	t.Helper()
	runNginx(t, proxyAddresses{listen: listen, log: filepath.Join(t.TempDir(), "log")}, "server {\nlisten "+listen+";\n"+lines+
		"\nlocation / {\nproxy_pass "+s.GatewayURL+";\nproxy_set_header Host $http_host;\n}\n}\n")
}

// behindNginx is a gateway with the cookie store and access tokens of this size, behind nginx.
func behindNginx(t *testing.T, tokenBytes int, lines string) *gatewaytest.Site {
	t.Helper()
	listen := porttest.Address()
	options := gatewaytest.Options{Front: "http://" + listen}
	options.Provider.AccessTokenSize = tokenBytes
	s := gatewaytest.New(t, options)
	frontNginx(t, s, listen, lines)
	return s
}

// buffersOf is what doctor says about the proxy in front of a site.
func buffersOf(t *testing.T, s *gatewaytest.Site, buffer, tokenBytes int) doctor.Finding {
	t.Helper()
	config := filepath.Join(t.TempDir(), "Caddyfile")
	writeFile(t, config, s.Caddyfile)
	got := commands.Run("doctor", "--config", config, "--json", "--proxy-buffer", strconv.Itoa(buffer), "--token-bytes", strconv.Itoa(tokenBytes))
	var report doctor.Report
	if err := json.Unmarshal([]byte(got.Out), &report); err != nil {
		t.Fatalf("%v\n%s", err, got.All())
	}
	for _, finding := range report.Findings {
		if finding.Check == "proxy buffers" {
			return finding
		}
	}
	t.Fatalf("doctor says nothing about proxy buffers:\n%s", got.All())
	return doctor.Finding{}
}

// nginxAdvice are the lines for nginx in an advice of doctor.
var nginxAdvice = regexp.MustCompile("set `([^`]+)` in nginx, and tell doctor with --proxy-buffer ([0-9]+)")

func TestDoctorForeseesThatNginxRefusesTheCallback(t *testing.T) {
	const tokenBytes = 3600
	s := behindNginx(t, tokenBytes, "")
	if a := s.NewBrowser().Follow("/"); a.StatusCode != http.StatusBadGateway || a.Request.URL.Path != "/oauth/callback" {
		t.Errorf("with nginx's default: got status %d at %s, want 502 at the callback", a.StatusCode, a.Request.URL.Path)
	}
	warned := buffersOf(t, s, 4096, tokenBytes)
	advice := nginxAdvice.FindStringSubmatch(warned.Do)
	if warned.Status != doctor.Failure || advice == nil || !strings.Contains(warned.Text, "nginx answers the callback with 502") {
		t.Fatalf("with nginx's default, doctor says %+v", warned)
	}
	buffer, _ := strconv.Atoi(advice[2])

	s = behindNginx(t, tokenBytes, advice[1])
	b := s.NewBrowser()
	if a := b.Follow("/"); a.StatusCode != http.StatusOK || b.Get("/again").StatusCode != http.StatusOK {
		t.Errorf("with %q: got status %d at %s", advice[1], a.StatusCode, a.Request.URL.Path)
	}
	if got := buffersOf(t, s, buffer, tokenBytes); got.Status != doctor.OK {
		t.Errorf("with %d bytes doctor says %+v", buffer, got)
	}
}

// TestDoctorKnowsTheLongestTokenForNginx signs in through nginx with the longest access tokens
// that doctor calls short enough, and with slightly longer ones.
func TestDoctorKnowsTheLongestTokenForNginx(t *testing.T) {
	for _, buffer := range []int{4096, 8192} {
		size := strconv.Itoa(buffer)
		lines := "proxy_buffer_size " + size + ";\nproxy_buffers 4 " + size + ";\nlarge_client_header_buffers 4 16k;"
		finding := buffersOf(t, gatewaytest.New(t, gatewaytest.Options{}), buffer, 1)
		named := regexp.MustCompile(`tokens of up to ([0-9]+) bytes`).FindStringSubmatch(finding.Text)
		if named == nil {
			t.Fatalf("doctor names no length: %+v", finding)
		}
		longest, _ := strconv.Atoi(named[1])
		for tokenBytes, want := range map[int]int{longest: http.StatusSeeOther, longest + 150: http.StatusBadGateway} {
			b := behindNginx(t, tokenBytes, lines).NewBrowser()
			callback := b.Authorize("?return_to=/" + strings.Repeat("x", 255))
			b.SetCookie("tollgate-signed-out", "1")
			if a := b.Visit(callback); a.StatusCode != want {
				t.Errorf("a buffer of %d bytes, tokens of %d bytes: got status %d, want %d", buffer, tokenBytes, a.StatusCode, want)
			}
		}
	}
}
