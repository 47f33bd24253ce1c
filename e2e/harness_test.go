package e2e

import (
	"strings"
	"testing"
	"time"
)

// The harness must notice the errors of a page: otherwise they would not fail any other test.
func TestHarnessReportsErrorsInAPage(t *testing.T) {
	s := newSite(t, siteOptions{pages: map[string]string{
		"/": document(`<script src="/page.js"></script><script>"inline"</script>`, `<img src="http://127.0.0.1:1/x.png">`),
		"/page.js": `console.warn("a warning"); console.error("an error"); fetch("/page-not-here");
			setTimeout(() => { throw new Error("thrown") }); Promise.reject(new Error("rejected"));
			window.done = true`,
	}})
	p := s.newPerson()
	w := p.open("/")
	w.eventually("window.done")
	for _, part := range []string{
		"console.warning: \"a warning\"", "console.error: \"an error\"", "thrown", "rejected", "404 (Not Found)",
		"Content-Security-Policy: script-src-elem", "Content-Security-Policy: img-src",
	} {
		deadline := time.Now().Add(stepTimeout)
		for !strings.Contains(strings.Join(p.unexpected(), "\n"), part) {
			if time.Now().After(deadline) {
				t.Fatalf("the harness did not notice %q; it noticed\n%s", part, strings.Join(p.unexpected(), "\n"))
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for _, trouble := range p.unexpected() {
		p.expect(trouble)
	}
}

func TestHarnessReportsRequestsToOtherOrigins(t *testing.T) {
	s := newSite(t, siteOptions{
		pages:  map[string]string{"/": document("", `<img src="http://127.0.0.1:1/x.png">`)},
		policy: "default-src * data:",
	})
	p := s.newPerson()
	p.expect("request to another origin: http://127.0.0.1:1/x.png")
	p.expect("ERR_UNSAFE_PORT")
	p.open("/")
}

func TestMissingBrowserErrorNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for packages, start := range map[string]func() error{
		"chromium":               (&chromiumProcess{}).start,
		"firefox-esr":            (&firefoxProcess{}).start,
		"webkit2gtk-driver xvfb": (&webKitProcess{}).start,
	} {
		if err := start(); err == nil || !strings.HasSuffix(err.Error(), "apt-get install "+packages) {
			t.Errorf("error %v, want one that names %s", err, packages)
		}
	}
}
