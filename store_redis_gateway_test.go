package tollgate_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
)

func redisSite(t *testing.T, server *redistest.Server) *gatewaytest.Site {
	t.Helper()
	return gatewaytest.New(t, gatewaytest.Options{InTollgate: "session {\nstore redis {\naddress " + server.Address() + "\n}\n}"})
}

func TestWithTheRedisStoreSigningOutIsFinal(t *testing.T) {
	s := redisSite(t, redistest.Start(t))
	b := s.NewBrowser().SignIn()
	for name, value := range b.Cookies() {
		if len(value) > 300 {
			t.Errorf("the cookie %s has %d bytes, want at most 300", name, len(value))
		}
	}
	copied := b.Copy()
	if a := copied.Get("/"); a.StatusCode != http.StatusOK {
		t.Fatalf("a copied cookie: status %d", a.StatusCode)
	}
	b.Send("POST", "/oauth/logout", nil)
	gatewaytest.Eventually(t, "the copied cookie is refused", func() bool { return copied.Get("/").StatusCode == http.StatusUnauthorized })
}

func TestRedisOutageSignsNobodyOut(t *testing.T) {
	server := redistest.Start(t)
	s := redisSite(t, server)
	b := s.NewBrowser().SignIn()
	before := b.Cookies()
	if a := b.Get("/oauth/ready"); a.StatusCode != http.StatusOK {
		t.Errorf("ready: status %d", a.StatusCode)
	}
	server.Kill()
	gatewaytest.Eventually(t, "the session cannot be read", func() bool { return b.Get("/").StatusCode == http.StatusServiceUnavailable })
	for _, path := range []string{"/", "/oauth/userinfo"} {
		for name, a := range map[string]*gatewaytest.Answer{"a script": b.Get(path), "a person": b.Visit(path)} {
			if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s at %s: status %d, Retry-After %q, Set-Cookie %q", name, path,
					a.StatusCode, a.Header.Get("Retry-After"), a.Header.Get("Set-Cookie"))
			}
		}
	}
	time.Sleep(records.ProbeInterval)
	if a := b.Get("/oauth/ready"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready while Redis is away: status %d", a.StatusCode)
	}
	server.Restart()
	gatewaytest.Eventually(t, "the session is back", func() bool { return b.Get("/").StatusCode == http.StatusOK })
	gatewaytest.Eventually(t, "it is ready", func() bool { return b.Get("/oauth/ready").StatusCode == http.StatusOK })
	for name, value := range before {
		if b.Cookies()[name] != value {
			t.Errorf("the cookie %s is another one", name)
		}
	}

	server.Must("FLUSHALL")
	gatewaytest.Eventually(t, "a session that is lost is none", func() bool { return b.Get("/").StatusCode == http.StatusUnauthorized })
	if a := b.Visit("/"); a.StatusCode != http.StatusFound {
		t.Errorf("a person: status %d", a.StatusCode)
	}
	b.SignIn()
}

func TestTheGatewayStartsWhileRedisIsDown(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	s := redisSite(t, server)
	b := s.NewBrowser()
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a session: status %d", a.StatusCode)
	}
	if a := b.Get("/oauth/ready"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready: status %d", a.StatusCode)
	}
	server.Restart()
	gatewaytest.Eventually(t, "it is ready", func() bool { return b.Get("/oauth/ready").StatusCode == http.StatusOK })
	b.SignIn()
}

func TestReloadKeepsRedisConnectionsAndTheEndClosesThem(t *testing.T) {
	server := redistest.Start(t)
	s := redisSite(t, server)
	b := s.NewBrowser().SignIn()
	for range 20 {
		b.Get("/")
	}
	before := server.Connections()
	if before == "" {
		t.Fatal("there is no connection")
	}
	s.Load()
	asked := server.Calls("get")
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("after a reload: status %d", a.StatusCode)
	}
	if after := server.Connections(); after != before || server.Calls("get") != asked {
		t.Errorf("connections %s became %s; Redis was asked %d times", before, after, server.Calls("get")-asked)
	}
}

// aloneUserID is the user's id, and not part of a longer number.
var aloneUserID = regexp.MustCompile(`\b` + gatewaytest.UserID + `\b`)

// TestRedisContainsNoDataOfTheUser looks through everything that Redis keeps.
func TestRedisContainsNoDataOfTheUser(t *testing.T) {
	server := redistest.Start(t)
	s := redisSite(t, server)
	b := s.NewBrowser().SignIn()
	seen := b.Get("/").Seen(t).Header
	secrets := []string{gatewaytest.UserID, seen.Get("X-User-Name"), seen.Get("X-User-Email"), gatewaytest.Secret, gatewaytest.ClientSecret}
	remember := func() {
		value := strings.TrimPrefix(b.Cookies()["tollgate"], "1.")
		found, err := s.Handlers[0].Internals().Store.Load(t.Context(), value)
		if err != nil || found.Session == nil {
			t.Fatalf("loading the session: %v", err)
		}
		secrets = append(secrets, value, found.Session.Tokens.Access, found.Session.Tokens.Refresh, string(found.Session.ID[:]))
	}
	remember()
	b.Send("POST", "/oauth/refresh", nil)
	remember()

	var kept strings.Builder
	for key := range strings.SplitSeq(server.Must("KEYS", "*"), "\n") {
		kept.WriteString(key + "\n" + server.Must("DUMP", key) + "\n")
		if server.Must("TYPE", key) == "string" {
			kept.WriteString(server.Must("GET", key) + "\n")
		} else {
			kept.WriteString(server.Must("ZRANGE", key, "0", "-1", "WITHSCORES") + "\n")
		}
	}
	server.Must("SAVE")
	filepath.Walk(server.Folder, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			kept.WriteString(manualtest.ReadFile(t, path))
		}
		return nil
	})
	text := kept.String()
	if !strings.Contains(text, "live\n") || len(text) < 2000 {
		t.Fatalf("found no record in %d bytes", len(text))
	}
	for _, secret := range secrets {
		if len(secret) < len(gatewaytest.UserID) {
			t.Errorf("%q is nothing to look for", secret)
		}
		if strings.Contains(text, secret) && (secret != gatewaytest.UserID || aloneUserID.MatchString(text)) {
			t.Errorf("%q stands in Redis", secret)
		}
		for _, coded := range []string{hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, coded) {
				t.Errorf("%q stands in Redis as %s", secret, coded)
			}
		}
	}
}

func TestRedisStoreWithoutASecretIsAWarning(t *testing.T) {
	for block, warned := range map[string]bool{"": true, "secret " + gatewaytest.Secret + "\n": false} {
		file := filepath.Join(t.TempDir(), "log")
		_, handlers, err := gatewaytest.Provision("{\nadmin off\nauto_https off\nstorage file_system " + t.TempDir() + "\nlog {\noutput file " + file + "\n}\n}\n" +
			"http:// {\ntollgate {\n" + minimalBlock + block + "session {\nstore redis {\naddress 127.0.0.1:1\npassword topsecret\n}\n}\n}\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range handlers {
			h.Cleanup()
		}
		log := ""
		if _, err := os.Stat(file); err == nil {
			log = manualtest.ReadFile(t, file)
		}
		if strings.Contains(log, "store redis without secret") != warned || strings.Contains(log, "topsecret") {
			t.Errorf("with %q: %s", block, log)
		}
	}
	// The log goes back to where it was.
	if _, _, err := gatewaytest.Provision("http:// {\nrespond ok\n}\n"); err != nil {
		t.Fatal(err)
	}
}
