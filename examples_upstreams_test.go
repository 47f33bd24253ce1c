package tollgate_test

import (
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// TestExamplesOfUpstreams runs what docs/headers.md tells application authors, in
// each language, behind a gateway.
func TestExamplesOfUpstreams(t *testing.T) {
	manual := manualtest.ReadFile(t, "docs/headers.md")
	for file, run := range map[string][]string{
		"main.go": nil, // compiled first
		"app.mjs": {"node"},
		"app.py":  {"python3"},
		"app.php": {"php", "-d", "display_errors=1", "-S"},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			text := manualtest.ReadFile(t, "examples/upstreams/"+file)
			if !strings.Contains(manual, "```"+fenceOf(file)+"\n"+text+"```") {
				t.Errorf("docs/headers.md does not contain the text of examples/upstreams/%s", file)
			}
			s, direct := newSampleSite(t, file, run)
			keepsItsWord(s, t)
			getsNothingForUndecodableNames(s.NewBrowser(), t, direct)
		})
	}
}

func fenceOf(file string) string {
	switch ext := strings.TrimPrefix(filepath.Ext(file), "."); ext {
	case "mjs":
		return "js"
	case "py":
		return "python"
	default:
		return ext
	}
}

// newSampleSite starts a sample on a free port, and a gateway in front of it. direct is
// the URL of the sample itself.
func newSampleSite(t *testing.T, file string, run []string) (s *gatewaytest.Site, direct string) {
	address := startSample(t, "examples/upstreams/"+file, run)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	return gatewaytest.New(t, gatewaytest.Options{
		Provider:   simulator.Options{AutoLogin: "张伟"},
		InTollgate: "public /public",
		Handler:    proxy.ServeHTTP,
	}), "http://" + address + "/"
}

// startSample starts a sample on a free port, and gives its address.
func startSample(t *testing.T, file string, run []string) (address string) {
	t.Helper()
	address = porttest.Address()
	_, port, _ := strings.Cut(address, ":")
	sample := filepath.Join(t.TempDir(), filepath.Base(file))
	writeFile(t, sample, render(t, file, "3000", port))
	switch {
	case run == nil:
		program := strings.TrimSuffix(sample, ".go")
		if out, err := exec.Command("go", "build", "-o", program, sample).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		run = []string{program}
	case run[0] == "php":
		run = append(run, address, sample)
	default:
		run = append(run, sample)
	}
	startProxy(t, address, run[0], run[1:]...)
	return address
}

// getsNothingForUndecodableNames sends values that the gateway never sends, as somebody
// can who reaches the sample past it. The sample answers 400, and serves on.
func getsNothingForUndecodableNames(b *gatewaytest.Browser, t *testing.T, sample string) {
	for _, name := range []string{"%", "%4", "a%zz", "100%", "%%41", "%FF", "%C3%28", "%ED%A0%80"} {
		if a := b.Get(sample, "X-User-Id: 1", "X-User-Name: "+name); a.StatusCode != 400 || a.Text != "not from the gateway\n" {
			t.Errorf("%s: status %d: %q, want 400", name, a.StatusCode, a.Text)
		}
	}
	if a := b.Get(sample, "X-User-Id: 1", "X-User-Name: %20admin%20"); a.Text != "1 is  admin  and has \n" {
		t.Errorf("afterwards: status %d: %q", a.StatusCode, a.Text)
	}
}

// keepsItsWord: names arrive decoded, nobody is nobody, and money that was spent is
// told.
func keepsItsWord(s *gatewaytest.Site, t *testing.T) {
	b := s.NewBrowser()
	if a := b.Follow("/"); a.Text != "24680 is 张伟 and has 0.00\n" {
		t.Fatalf("signed in: status %d: %q", a.StatusCode, a.Text)
	}
	if a := b.Get("/public", "X-User-Id: 1"); a.Text != " is  and has \n" {
		t.Errorf("nobody: status %d: %q", a.StatusCode, a.Text)
	}
	if err := s.Provider.TopUp(24680, 500); err != nil {
		t.Fatal(err)
	}
	if a := b.Get("/"); a.Text != "24680 is 张伟 and has 0.00\n" {
		t.Errorf("before it is told: status %d: %q", a.StatusCode, a.Text)
	}
	if a := b.Send("POST", "/", nil); a.Header.Get("Tollgate-Balance") != "" || a.StatusCode != 200 {
		t.Errorf("spending: status %d: %v", a.StatusCode, a.Header)
	}
	if a := b.Get("/"); a.Text != "24680 is 张伟 and has 5.00\n" {
		t.Errorf("after it was told: status %d: %q", a.StatusCode, a.Text)
	}
}
