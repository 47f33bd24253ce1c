package doctor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/command"
	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/doctor"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

var commands = commandtest.Commands(command.AddCommands)

// clinic is a set-up in which everything is right, until a test breaks it.
type clinic struct {
	t *testing.T
	// provider answers at providerURL.
	provider    http.Handler
	providerURL string
	storage     string // Caddy's, a folder
	secretFile  string
	clientFile  string
	// redirectURI is registered at the provider.
	redirectURI string
	caddyfile   string
	flags       []string
	// isSlow is true if the test is about a slow store.
	isSlow bool
}

const site = "http://127.0.0.1:8080"

func newClinic(t *testing.T) *clinic {
	t.Helper()
	c := &clinic{t: t, storage: t.TempDir(), redirectURI: site + "/oauth/callback"}
	c.provider = simulator.New(simulator.Options{Clients: []simulator.Client{
		{ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, RedirectURIs: []string{c.redirectURI}},
	}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.provider.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	c.providerURL = server.URL
	c.secretFile = c.write("secret", keys.NewSecret())
	c.clientFile = c.write("client_secret", gatewaytest.ClientSecret)
	c.caddyfile = `{
	admin off
	storage file_system ` + c.storage + `
}
` + site + ` {
	tollgate {
		provider aihubmix {
			base_url ` + c.providerURL + `
			client_id ` + gatewaytest.ClientID + `
			client_secret {file.` + c.clientFile + `}
			timeout 30s
		}
		redirect_uri ` + c.redirectURI + `
		secret {file.` + c.secretFile + `}
		public /open/*
	}
	reverse_proxy 127.0.0.1:9
}
`
	return c
}

// write writes a file that only its owner can read.
func (c *clinic) write(name, content string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// change replaces a part of the Caddyfile.
func (c *clinic) change(from, to string) {
	c.t.Helper()
	if !strings.Contains(c.caddyfile, from) {
		c.t.Fatalf("the Caddyfile has no %q:\n%s", from, c.caddyfile)
	}
	c.caddyfile = strings.ReplaceAll(c.caddyfile, from, to)
}

// report is what doctor prints with --json.
type report struct {
	Status   doctor.Status
	Findings []doctor.Finding
}

// examine runs the command.
func (c *clinic) examine() report {
	c.t.Helper()
	config := c.write("Caddyfile", c.caddyfile)
	got := commands.Run(append([]string{"doctor", "--config", config, "--json"}, c.flags...)...)
	var r report
	if err := json.Unmarshal([]byte(got.Out), &r); err != nil {
		c.t.Fatalf("%v\n%s", err, got.All())
	}
	if failed := r.Status == doctor.Failure; failed != (got.Err != nil) {
		c.t.Errorf("the status is %s, and the command ended with %v", r.Status, got.Err)
	}
	if !c.isSlow {
		r.forgetLatency()
	}
	for _, secret := range []string{gatewaytest.ClientSecret, c.read(c.secretFile)} {
		if strings.Contains(got.All(), secret) {
			c.t.Errorf("the report shows a secret:\n%s", got.All())
		}
	}
	return r
}

// forgetLatency makes a store that is slow a good one: on a busy machine every store is slow.
func (r *report) forgetLatency() {
	warnings := 0
	for i, f := range r.Findings {
		if before, after, slow := strings.Cut(f.Text, " is slow: a write took "); slow {
			r.Findings[i].Status, r.Findings[i].Text = doctor.OK, before+" can be written, in "+after
		} else if f.Status == doctor.Warning {
			warnings++
		}
	}
	if r.Status == doctor.Warning && warnings == 0 {
		r.Status = doctor.OK
	}
}

func (c *clinic) read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// want runs the command, and checks that this is the one thing that it complains about.
func (c *clinic) want(status doctor.Status, check string, words ...string) {
	c.t.Helper()
	r := c.examine()
	found := false
	for _, f := range r.Findings {
		switch {
		case f.Check == check && f.Status == status:
			found = true
			for _, word := range words {
				if !strings.Contains(f.Text+"\n"+f.Do, word) {
					c.t.Errorf("the finding has no %q: %s → %s", word, f.Text, f.Do)
				}
			}
			if f.Do == "" {
				c.t.Errorf("the finding does not say what to do: %s", f.Text)
			}
		case f.Status != doctor.OK && f.Text != "" && !strings.HasPrefix(f.Text, "not checked"):
			c.t.Errorf("another finding: %+v", f)
		}
	}
	if !found {
		c.t.Errorf("no %s of %q; got:\n%s", status, check, r)
	}
}

func (r report) String() string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s %s: %s → %s\n", f.Status, f.Check, f.Text, f.Do)
	}
	return b.String()
}

func TestEverythingRight(t *testing.T) {
	c := newClinic(t)
	begun := time.Now()
	r := c.examine()
	if r.Status != doctor.OK || len(r.Findings) < 14 {
		t.Errorf("the report of a good set-up:\n%s", r)
	}
	t.Logf("%v\n%s", time.Since(begun), r)
}

// TestTheSampleInTheDocumentIsReal runs doctor on the set-up of the sample.
func TestTheSampleInTheDocumentIsReal(t *testing.T) {
	document, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, found := strings.Cut(string(document), "This site has a wrong client secret:\n\n```\n")
	sample, _, ended := strings.Cut(sample, "```")
	if !found || !ended {
		t.Fatal("docs/doctor.md has no sample")
	}
	c := newClinic(t)
	c.serveAt("https://app.example.com")
	c.register("https://app.example.com/oauth/callback")
	c.change("public /open/*", "")
	c.change(c.clientFile, c.write("client_secret", "another_secret_0123456789"))
	got := commands.Run("doctor", "--config", c.write("Caddyfile", c.caddyfile))
	out := strings.ReplaceAll(got.Out, c.providerURL, "https://api.aihubmix.com")
	_, out, _ = strings.Cut(out, "\n") // the versions
	_, sample, _ = strings.Cut(sample, "\n")
	if got.Err == nil || got.Err.Error() != "failed checks: 1" || out != sample {
		t.Errorf("%v\n%s\nwant\n%s", got.Err, out, sample)
	}
}

func TestTheDocumentDescribesEveryCheck(t *testing.T) {
	document, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	c := newClinic(t)
	c.change("client_id", "revocation_endpoint /api/oauth2/revoke\nbalance_endpoint /api/oauth2/userinfo\nclient_id")
	r := c.examine()
	if r.Status != doctor.OK || len(r.Findings) < 18 {
		t.Errorf("the report:\n%s", r)
	}
	for _, f := range r.Findings {
		if !strings.Contains(string(document), "`"+f.Check+"`") {
			t.Errorf("docs/doctor.md does not describe the check %q", f.Check)
		}
	}
}

func TestDoctorNamesTheLineThatDoesNotLoad(t *testing.T) {
	c := newClinic(t)
	c.change("public /open/*", "publik /open/*")
	c.want(doctor.Failure, "configuration", "publik", "did you mean", "Caddyfile:15")
	c = newClinic(t)
	c.change("tollgate {", "bind 127.0.0.1\nroute {\n")
	c.caddyfile = c.caddyfile[:strings.Index(c.caddyfile, "route {")] + "}\n"
	c.want(doctor.Failure, "configuration", "no site of this configuration has tollgate")
	c = newClinic(t)
	c.flags = []string{"--site", "example.org"}
	c.want(doctor.Failure, "configuration", "no site with tollgate has the host", "example.org")
	c = newClinic(t)
	c.change("{file."+c.clientFile+"}", "{env.DOCTOR_TEST_SECRET}")
	c.want(doctor.Failure, "configuration", "DOCTOR_TEST_SECRET is not set")
	t.Setenv("DOCTOR_TEST_OTHER", "kept")
	c.flags = []string{"--envfile", c.write("env", "# comment\nexport DOCTOR_TEST_SECRET='"+gatewaytest.ClientSecret+"' # so\nDOCTOR_TEST_OTHER=changed\n\n")}
	t.Cleanup(func() { os.Unsetenv("DOCTOR_TEST_SECRET") })
	if r := c.examine(); r.Status != doctor.OK || os.Getenv("DOCTOR_TEST_OTHER") != "kept" {
		t.Errorf("with an env file:\n%s", r)
	}
	for text, want := range map[string]string{"NAME": "line 1 is not NAME=value", "A=b\nC='d": "line 2 begins a value in quotes"} {
		c.flags = []string{"--envfile", c.write("env", text)}
		c.want(doctor.Failure, "configuration", "--envfile: ", want)
	}
}

func TestDoctorNamesWhatIsWrongAtTheProvider(t *testing.T) {
	for name, test := range map[string]struct {
		breakIt func(c *clinic)
		check   string
		words   []string
	}{
		"wrong client secret": {func(c *clinic) {
			c.change(c.clientFile, c.write("client_secret", "another_secret_0123456789"))
		}, "token endpoint", []string{"invalid_client", "client_secret"}},
		"wrong URL": {func(c *clinic) {
			c.change("client_id", "token_endpoint /api/oauth2/tokens\nclient_id")
		}, "token endpoint", []string{"/api/oauth2/tokens", "404", "`token_endpoint`"}},
		"a page instead of the endpoint": {func(c *clinic) {
			c.change("client_id", "userinfo_endpoint /topup\nclient_id")
		}, "userinfo endpoint", []string{"a page", "`userinfo_endpoint`"}},
		"redirect_uri is not registered": {func(c *clinic) {
			c.change("/oauth/callback", "/oauth/other")
		}, "authorization endpoint", []string{"redirect_uri is not registered", site + "/oauth/other"}},
		"unknown client": {func(c *clinic) {
			c.change("client_id "+gatewaytest.ClientID, "client_id nobody")
		}, "authorization endpoint", []string{"does not know this client_id"}},
		"unknown scope": {func(c *clinic) {
			c.change("client_id "+gatewaytest.ClientID, "scopes everything\nclient_id "+gatewaytest.ClientID)
		}, "authorization endpoint", []string{"invalid_scope", "`scopes`"}},
		"plain http at an https endpoint": {func(c *clinic) {
			c.change("base_url "+c.providerURL, "base_url "+c.providerURL+"\nuserinfo_endpoint http://"+c.serveTLS(validCertificate)+"/api/oauth2/userinfo")
		}, "userinfo endpoint", []string{"is http, but the provider speaks https"}},
		"https at a plain http endpoint": {func(c *clinic) {
			c.change("base_url "+c.providerURL, "base_url "+c.providerURL+"\nuserinfo_endpoint "+strings.Replace(c.providerURL, "http:", "https:", 1)+"/api/oauth2/userinfo")
		}, "userinfo endpoint", []string{"is https, but the server speaks plain http"}},
		"a redirect to https": {func(c *clinic) {
			provider := c.provider
			c.provider = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == simulator.TokenPath {
					http.Redirect(w, r, "https://provider.example.com"+simulator.TokenPath, http.StatusMovedPermanently)
					return
				}
				provider.ServeHTTP(w, r)
			})
		}, "token endpoint", []string{"redirects to https://provider.example.com" + simulator.TokenPath}},
		"expired certificate": {func(c *clinic) {
			c.change("base_url "+c.providerURL, "base_url "+c.providerURL+"\nuserinfo_endpoint https://"+c.serveTLS(expiredCertificate)+"/api/oauth2/userinfo")
		}, "userinfo endpoint", []string{"TLS certificate is valid from 2020-01-01 to 2020-02-01"}},
		"certificate of an unknown authority": {func(c *clinic) {
			c.change("base_url "+c.providerURL, "base_url "+c.providerURL+"\nuserinfo_endpoint https://"+c.serveTLS(validCertificate)+"/api/oauth2/userinfo")
		}, "userinfo endpoint", []string{"not from an authority that this machine trusts"}},
		"host that does not exist": {func(c *clinic) {
			c.change("base_url "+c.providerURL, "base_url "+c.providerURL+"\nuserinfo_endpoint https://provider.invalid/api/oauth2/userinfo")
		}, "userinfo endpoint", []string{"the name provider.invalid does not exist in DNS"}},
		"certificate of another host": {func(c *clinic) {
			c.change("base_url "+c.providerURL, "base_url "+c.providerURL+"\nuserinfo_endpoint https://"+strings.Replace(c.serveTLS(validCertificate), "127.0.0.1", "localhost", 1)+"/api/oauth2/userinfo")
		}, "userinfo endpoint", []string{"not for the host localhost"}},
		"an error page instead of the sign-in": {func(c *clinic) {
			c.answer(simulator.AuthorizePath, http.StatusFound, "")
		}, "authorization endpoint", []string{"leads to an error page"}},
		"a page instead of the token endpoint": {func(c *clinic) {
			c.change("client_id", "token_endpoint /topup\nclient_id")
		}, "token endpoint", []string{"a page", "not the token endpoint"}},
		"a client that may not exchange codes": {func(c *clinic) {
			c.answer(simulator.TokenPath, http.StatusBadRequest, `{"error":"unauthorized_client"}`)
		}, "token endpoint", []string{"unauthorized_client", "authorization code grant"}},
		"no response": {func(c *clinic) {
			provider := c.provider
			c.provider = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == simulator.TopUpPath { // the last endpoint
					<-r.Context().Done()
					return
				}
				provider.ServeHTTP(w, r)
			})
			c.change("timeout 30s", "timeout 2s")
		}, "topup endpoint", []string{"no response within the timeout"}},
		"401 without an error code": {func(c *clinic) {
			c.answer(simulator.TokenPath, http.StatusUnauthorized, "")
		}, "token endpoint", []string{"answers 401", "does not accept the client's id and secret"}},
		"nothing listens": {func(c *clinic) {
			c.change("base_url "+c.providerURL, "base_url http://127.0.0.1:1")
		}, "authorization endpoint", []string{"connection is refused"}},
		"provider is down": {func(c *clinic) {
			c.provider = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
			c.change("base_url "+c.providerURL, "base_url "+c.providerURL+"\ntopup_endpoint off")
		}, "token endpoint", []string{"503", "the provider is down"}},
		"skewed clock": {func(c *clinic) {
			c.provider = withDate(c.provider, time.Now().Add(-10*time.Minute))
		}, "clock", []string{"clock is 10m", "ahead of the provider's"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClinic(t)
			test.breakIt(c)
			if name == "unknown client" || name == "provider is down" {
				c.wantAmong(doctor.Failure, test.check, test.words...)
				return
			}
			c.want(doctor.Failure, test.check, test.words...)
		})
	}
}

// withDate makes a server send the time of another clock.
func withDate(h http.Handler, clock time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", clock.UTC().Format(http.TimeFormat))
		h.ServeHTTP(w, r)
	})
}

// validCertificate and expiredCertificate are the periods of certificates.
var (
	validCertificate   = [2]time.Time{time.Now().Add(-time.Hour), time.Now().Add(time.Hour)}
	expiredCertificate = [2]time.Time{time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2020, 2, 1, 0, 0, 0, 0, time.UTC)}
)

// serveTLS serves the provider with a certificate for this period, and returns the address.
func (c *clinic) serveTLS(period [2]time.Time) string {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	certificate, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: period[0], NotAfter: period[1], IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		c.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(c.provider)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	c.t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// wantAmong is like want, where one mistake breaks several checks.
func (c *clinic) wantAmong(status doctor.Status, check string, words ...string) {
	c.t.Helper()
	r := c.examine()
	for _, f := range r.Findings {
		if f.Check != check || f.Status != status {
			continue
		}
		for _, word := range words {
			if !strings.Contains(f.Text+"\n"+f.Do, word) {
				c.t.Errorf("the finding has no %q: %s → %s", word, f.Text, f.Do)
			}
		}
		return
	}
	c.t.Errorf("no %s of %q; got:\n%s", status, check, r)
}

func TestDoctorNamesWhatIsWrongWithTheAddresses(t *testing.T) {
	const https = "https://app.example.com"
	for name, test := range map[string]struct {
		breakIt func(c *clinic)
		status  doctor.Status
		check   string
		words   []string
	}{
		"http for https": {func(c *clinic) {
			c.serveAt("https://127.0.0.1:8080")
		}, doctor.Failure, "redirect_uri", []string{"redirect_uri is http", "https://127.0.0.1:8080/oauth/callback"}},
		"https for http": {func(c *clinic) {
			c.serveAt("http://app.example.com:8443")
			c.register("https://app.example.com:8443/oauth/callback")
			c.flags = []string{"--proxy-buffer", "16384"} // else the proxy in front is one more thing to tell
		}, doctor.Failure, "redirect_uri", []string{"redirect_uri is https", "plain http on port 8443"}},
		"other host": {func(c *clinic) {
			c.serveAt("http://localhost:8080")
		}, doctor.Failure, "redirect_uri", []string{"another host, 127.0.0.1", "localhost"}},
		"other port": {func(c *clinic) {
			c.serveAt("http://127.0.0.1:8081")
		}, doctor.Warning, "redirect_uri", []string{"another port, 8080", ":8081"}},
		"callback in another block": {func(c *clinic) {
			c.change("tollgate {", "handle_path /app/* {\ntollgate {")
			c.change("reverse_proxy 127.0.0.1:9", "reverse_proxy 127.0.0.1:9\n}")
		}, doctor.Failure, "redirect_uri", []string{"/oauth/callback does not come to this tollgate"}},
		"another name of the site": {func(c *clinic) {
			c.serveAt(https + ", https://www.example.com")
			c.register(https + "/oauth/callback")
		}, doctor.Warning, "redirect_uri", []string{"www.example.com", "ends at " + https}},
		"two sites with one redirect_uri": {func(c *clinic) {
			_, second, _ := strings.Cut(c.caddyfile, "}\n"+site)
			c.caddyfile += strings.Replace("http://127.0.0.1:8081"+second, "public /open/*", "public /other/*", 1)
		}, doctor.Failure, "other sites", []string{"two sites have one redirect_uri", ":8080", ":8081"}},
		"two sites with one cookie": {func(c *clinic) {
			_, second, _ := strings.Cut(c.caddyfile, "}\n"+site)
			other := "http://127.0.0.1:8081"
			c.caddyfile += other + strings.Replace(second, c.redirectURI, other+"/oauth/callback", 1)
			c.register(c.redirectURI, other+"/oauth/callback")
		}, doctor.Failure, "other sites", []string{"cookie name tollgate", "cookie_name"}},
		"cookie domain of another site": {func(c *clinic) {
			c.serveAt(https)
			c.register(https + "/oauth/callback")
			c.change("public /open/*", "session {\ncookie_domain example.org\n}")
		}, doctor.Failure, "configuration", []string{"session.cookie_domain", "example.org", "Caddyfile:"}},
		"cookie domain of everybody": {func(c *clinic) {
			c.serveAt("https://app.github.io")
			c.register("https://app.github.io/oauth/callback")
			c.change("public /open/*", "session {\ncookie_domain github.io\n}")
		}, doctor.Failure, "cookies", []string{"github.io is a public suffix"}},
		"cookie over plain http": {func(c *clinic) {
			c.serveAt("http://app.example.com")
			c.register("http://app.example.com/oauth/callback")
			c.change("public /open/*", "insecure_http")
		}, doctor.Warning, "cookies", []string{"plain http"}},
		"cookie for every site": {func(c *clinic) {
			c.serveAt(https)
			c.register(https + "/oauth/callback")
			c.change("public /open/*", "session {\nsame_site none\n}")
		}, doctor.Warning, "cookies", []string{"same_site none"}},
		"forward_auth trusts everybody": {func(c *clinic) {
			c.change("public /open/*", "forward_auth {\ntrusted_proxies 0.0.0.0/0\n}\nsession {\nstore storage\n}")
		}, doctor.Failure, "trusted proxies", []string{"forward_auth trusts"}},
		"Caddy trusts everybody": {func(c *clinic) {
			c.change("admin off", "admin off\nservers {\ntrusted_proxies static ::/0\n}")
			c.flags = []string{"--proxy-buffer", "16384"}
		}, doctor.Warning, "trusted proxies", []string{"Caddy trusts"}},
		"reverse_proxy trusts everybody": {func(c *clinic) {
			c.change("reverse_proxy 127.0.0.1:9", "reverse_proxy 127.0.0.1:9 {\ntrusted_proxies 0.0.0.0/0\n}")
		}, doctor.Warning, "trusted proxies", []string{"a reverse_proxy of this site"}},
		"small buffers of the proxy in front": {func(c *clinic) {
			c.change("admin off", "admin off\nservers {\ntrusted_proxies static private_ranges\n}")
		}, doctor.Warning, "proxy buffers", []string{"a proxy buffer of 4096 bytes", "proxy_buffer_size 16k"}},
		"tokens that do not fit into the buffers": {func(c *clinic) {
			c.flags = []string{"--proxy-buffer", "4096", "--token-bytes", "2500"}
		}, doctor.Failure, "proxy buffers", []string{"access tokens of 2500 bytes", "answers the callback with 502", "proxy_buffer_size 16k"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClinic(t)
			test.breakIt(c)
			if name == "two sites with one redirect_uri" { // which leads to one of them only
				c.wantAmong(test.status, test.check, test.words...)
				return
			}
			c.want(test.status, test.check, test.words...)
		})
	}
}

// serveAt changes the address of the site, and nothing else.
func (c *clinic) serveAt(address string) { c.change("\n"+site+" {", "\n"+address+" {") }

// register changes redirect_uri, here and at the provider.
func (c *clinic) register(redirectURIs ...string) {
	c.change("redirect_uri "+c.redirectURI, "redirect_uri "+redirectURIs[0])
	c.redirectURI = redirectURIs[0]
	c.provider.(*simulator.Provider).SetClient(simulator.Client{ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, RedirectURIs: redirectURIs})
}

func TestDoctorNamesWhatIsWrongWithTheSecrets(t *testing.T) {
	for name, test := range map[string]struct {
		breakIt func(c *clinic)
		status  doctor.Status
		check   string
		words   []string
	}{
		"repeating": {func(c *clinic) {
			c.change(c.secretFile, c.write("weak", strings.Repeat("a", 43)))
		}, doctor.Failure, "secret", []string{"the secret is weak: its characters repeat", "keygen"}},
		"a text": {func(c *clinic) {
			c.change(c.secretFile, c.write("weak", "VGhpcyBpcyB0aGUgc2VjcmV0IHBhc3N3b3JkIG9mIG91ciBzaXRl"))
		}, doctor.Failure, "secret", []string{"it is a text"}},
		"words": {func(c *clinic) {
			c.change(c.secretFile, c.write("weak", "correcthorsebatterystaplecorrectbatteryhorsestaple"))
		}, doctor.Failure, "secret", []string{"letters of one case"}},
		"a text with its line end": {func(c *clinic) {
			c.change(c.secretFile, c.write("weak", base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef\n"))))
		}, doctor.Failure, "secret", []string{"it is a text"}},
		"a weak previous secret": {func(c *clinic) {
			c.change("secret {file."+c.secretFile+"}", "secret {file."+c.secretFile+"} {file."+c.write("weak", strings.Repeat("a", 43))+"}")
		}, doctor.Failure, "secret", []string{"secret number 2 is weak"}},
		"in the configuration": {func(c *clinic) {
			c.change("{file."+c.secretFile+"}", keys.NewSecret())
		}, doctor.Warning, "secret", []string{"is written in the configuration"}},
		"generated beside the records": {func(c *clinic) {
			c.change("secret {file."+c.secretFile+"}", "session {\nstore storage\n}")
		}, doctor.Warning, "secret", []string{"beside the sessions that it protects"}},
		"generated for Redis": {func(c *clinic) {
			c.change("secret {file."+c.secretFile+"}", "session {\nstore redis {\naddress "+redistest.Start(c.t).Address()+"\n}\n}")
		}, doctor.Warning, "secret", []string{"the same for all gateways"}},
		"a file beside the records": {func(c *clinic) {
			path := filepath.Join(c.storage, "secret")
			if err := os.WriteFile(path, []byte(keys.NewSecret()), 0o600); err != nil {
				c.t.Fatal(err)
			}
			c.change(c.secretFile, path)
		}, doctor.Warning, "secret", []string{"inside Caddy's storage"}},
		"a file for everybody": {func(c *clinic) {
			if err := os.Chmod(c.secretFile, 0o644); err != nil {
				c.t.Fatal(err)
			}
		}, doctor.Warning, "secret", []string{"every user of this machine can read", "chmod o-r"}},
		"client secret in the configuration": {func(c *clinic) {
			c.change("{file."+c.clientFile+"}", gatewaytest.ClientSecret)
		}, doctor.Warning, "client secret", []string{"is written in the configuration"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClinic(t)
			test.breakIt(c)
			c.want(test.status, test.check, test.words...)
			if _, err := os.Stat(filepath.Join(c.storage, keys.StoredSecretKey)); err == nil {
				t.Error("doctor has made a secret")
			}
		})
	}
}

func TestDoctorNamesWhatIsWrongWithTheStore(t *testing.T) {
	redis := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1", strconv.Itoa(redis.Port))
	alone := redistest.Start(t, "--min-replicas-to-write", "1")
	redis.Must("ACL", "SETUSER", "reader", "on", ">password", "~*", "+@read", "+@connection", "+@slow", "-@write")
	for name, test := range map[string]struct {
		storage string
		session string
		words   []string // nil: all is right
	}{
		"Redis":                      {"", "store redis {\naddress " + redis.Address() + "\n}", nil},
		"storage":                    {"", "store storage", nil},
		"Redis is down":              {"", "store redis {\naddress 127.0.0.1:1\n}", []string{"cannot be used", "start the store"}},
		"a full Redis":               {"", "store redis {\naddress " + redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction").Address() + "\n}", []string{"OOM", "give it room"}},
		"a read-only Redis":          {"", "store redis {\naddress " + replica.Address() + "\n}", []string{"READONLY", "read-only replica"}},
		"Redis has too few replicas": {"", "store redis {\naddress " + alone.Address() + "\n}", []string{"NOREPLICAS", "min-replicas-to-write"}},
		"a read-only user":           {"", "store redis {\naddress " + redis.Address() + "\nusername reader\npassword password\n}", []string{"NOPERM", "ACL SETUSER"}},
		"a wrong password":           {"", "store redis {\naddress " + redis.Address() + "\nusername reader\npassword passwort\n}", []string{"WRONGPASS", "`password`"}},
		"no folder to write":         {"/proc/tollgate", "store storage", []string{"Caddy's storage cannot be used: writing", "check the folder of Caddy's storage"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClinic(t)
			c.change("public /open/*", "session {\n"+test.session+"\n}")
			if test.storage != "" {
				c.change(c.storage, test.storage)
			}
			if test.words != nil {
				c.want(doctor.Failure, "session store", test.words...)
				return
			}
			if r := c.examine(); r.Status != doctor.OK || !strings.Contains(r.String(), "ok session store: ") || !strings.Contains(r.String(), " can be written, in ") {
				t.Errorf("the report of a good store:\n%s", r)
			}
			if left, err := filepath.Glob(c.storage + "/*/*"); err != nil || left != nil {
				t.Errorf("doctor has left %v in the storage (%v)", left, err)
			}
		})
	}
}

func TestDoctorFindsUpstreamsThatTollgateDoesNotProtect(t *testing.T) {
	for name, breakIt := range map[string]func(c *clinic){
		"order": func(c *clinic) { c.change("admin off", "admin off\norder tollgate after reverse_proxy") },
		"route": func(c *clinic) {
			c.change("reverse_proxy 127.0.0.1:9", "")
			c.change("\ttollgate {", "\troute {\nreverse_proxy 127.0.0.1:9\ntollgate {")
			c.change("public /open/*\n\t}", "public /open/*\n}\n}")
		},
		"one path": func(c *clinic) {
			c.change("reverse_proxy 127.0.0.1:9", "reverse_proxy 127.0.0.1:9")
			c.change("\ttollgate {", "\troute {\nreverse_proxy /api/* 127.0.0.1:9\ntollgate {")
			c.change("public /open/*\n\t}", "public /open/*\n}\n}")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClinic(t)
			breakIt(c)
			c.want(doctor.Failure, "upstream", "X-User-", "reached the upstream", "order tollgate")
		})
	}
}

func TestReportTellsSitesWithOneOriginApart(t *testing.T) {
	c := newClinic(t)
	_, second, _ := strings.Cut(c.caddyfile, "}\n"+site)
	c.caddyfile += "http://127.0.0.1:8081" + second
	sites := map[string]bool{}
	for _, f := range c.examine().Findings {
		sites[f.Site] = true
	}
	for _, want := range []string{site + " (the site 127.0.0.1 on :8080)", site + " (the site 127.0.0.1 on :8081)"} {
		if !sites[want] {
			t.Errorf("no finding is about %q, only about %v", want, sites)
		}
	}
}

func TestDoctorFindsPathsThatDoNotComeToTollgate(t *testing.T) {
	inBlock := func(c *clinic, outside string) {
		c.change("reverse_proxy 127.0.0.1:9\n", "reverse_proxy 127.0.0.1:9\n}\n")
		c.change("\ttollgate {", "\thandle /api/* {\nreverse_proxy "+outside+"\n}\nhandle {\ntollgate {")
	}
	c := newClinic(t)
	inBlock(c, "127.0.0.1:9")
	c.want(doctor.Failure, "upstream", "/api/doctor does not come to tollgate", "upstream 127.0.0.1:9", "to the top of the site")
	c = newClinic(t)
	inBlock(c, "127.0.0.1:10")
	c.want(doctor.Warning, "upstream", "/api/doctor does not come to tollgate", "upstream 127.0.0.1:10", "another application")
	c = newClinic(t)
	inBlock(c, "{\ndynamic srv api.example.com\n}")
	c.change("reverse_proxy 127.0.0.1:9\n", "reverse_proxy {\ndynamic srv app.example.com\n}\n")
	c.want(doctor.Warning, "upstream", "upstream dynamic srv api.example.com", "another application")
}

// panicking is a handler of another module that fails.
type panicking struct{}

func (panicking) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.doctor_test_panics", New: func() caddy.Module { return panicking{} }}
}

func (panicking) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	panic("the handler panics")
}

func init() {
	caddy.RegisterModule(panicking{})
	httpcaddyfile.RegisterHandlerDirective("doctor_test_panics", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return panicking{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("doctor_test_panics", httpcaddyfile.Before, "reverse_proxy")
}

func TestDoctorGoesOnAfterAPanicOfAHandler(t *testing.T) {
	c := newClinic(t)
	c.change("reverse_proxy 127.0.0.1:9", "doctor_test_panics\nreverse_proxy 127.0.0.1:9")
	c.want(doctor.Warning, "upstream", "a handler of this site panics at a request for /", "look at its log")
}

func TestDoctorLoadsWithoutCaddysOwnAuthority(t *testing.T) {
	c := newClinic(t)
	c.change("reverse_proxy 127.0.0.1:9", "acme_server /acme/*\nreverse_proxy https://127.0.0.1:9 {\ntransport http {\ntls_trust_pool pki_root local\n}\n}")
	if r := c.examine(); r.Status != doctor.OK {
		t.Errorf("the report of a good set-up:\n%s", r)
	}
	if made, err := filepath.Glob(c.storage + "/*"); err != nil || made != nil {
		t.Errorf("doctor has made %v in the storage (%v)", made, err)
	}
}

func TestCauseLeavesOutTheModulesAround(t *testing.T) {
	around := "loading http app module: provision http: server srv0: setting up route handlers: route 0: loading handler modules: position 0: " +
		"loading module 'subroute': provision http.handlers.subroute: setting up subroutes: route 0: loading handler modules: position 1: "
	for text, want := range map[string]string{
		around + "loading module 'tollgate': provision http.handlers.tollgate: redirect_uri: environment variable X is not set": "tollgate: redirect_uri: environment variable X is not set",
		around + "loading module 'reverse_proxy': provision http.handlers.reverse_proxy: no upstreams":                          "reverse_proxy: no upstreams",
		"parsing caddyfile tokens for 'tollgate': redirect_uri: empty, at Caddyfile:3":                                          "parsing caddyfile tokens for 'tollgate': redirect_uri: empty, at Caddyfile:3",
		around + "unknown module: http.handlers.tolgate":                                                                        "subroute: setting up subroutes: route 0: loading handler modules: position 1: unknown module: http.handlers.tolgate",
	} {
		if got := doctor.Cause(text); got != want {
			t.Errorf("Cause(%q) is\n%s\nwant\n%s", text, got, want)
		}
	}
}

func TestDoctorAcceptsUsualSitesWithUpstreams(t *testing.T) {
	for name, change := range map[string]func(c *clinic){
		"handle": func(c *clinic) {
			c.change("reverse_proxy 127.0.0.1:9", "handle_path /api/* {\nreverse_proxy https://api.example.com\n}\nhandle {\nreverse_proxy h2c://127.0.0.1:9\n}")
		},
		"forward_auth before tollgate": func(c *clinic) {
			c.change("reverse_proxy 127.0.0.1:9", "reverse_proxy 127.0.0.1:9\nforward_auth 127.0.0.1:9 {\nuri /verify\n}")
		},
		"PHP":           func(c *clinic) { c.change("reverse_proxy 127.0.0.1:9", "root /nonexistent\nphp_fastcgi 127.0.0.1:9") },
		"no upstream":   func(c *clinic) { c.change("reverse_proxy 127.0.0.1:9", "file_server") },
		"a rule":        func(c *clinic) { c.change("public /open/*", "require {\nemail_domain example.org\n}") },
		"several paths": func(c *clinic) { c.change("public /open/*", "public /open/* *.css\noptional /page") },
		"a matcher":     func(c *clinic) { c.change("tollgate {", "@app not path /assets/*\ntollgate @app {") },
		"headers": func(c *clinic) {
			c.change("public /open/*", "identity webauth remote {\nheader X-Who {http.auth.user.id}\n}\nassertion\npass_access_token")
		},
		"Redis and a proxy": func(c *clinic) {
			c.change("public /open/*", "forward_auth {\ntrusted_proxies 192.0.2.1\n}\nsession {\nstore redis {\naddress "+redistest.Start(c.t).Address()+"\n}\n}")
		},
		"the local address": func(c *clinic) {
			c.change("reverse_proxy 127.0.0.1:9", "reverse_proxy 127.0.0.1:9 {\nheader_up X-Port {http.request.local.port}\n}")
			c.change("tollgate {", "@local vars {http.request.local.host} 127.0.0.1\nroute @local {\ntollgate {")
			c.change("public /open/*\n\t}", "public /open/*\n}\n}")
		},
		"a reserve": func(c *clinic) { c.change("public /open/*", "require /paid/* {\nbalance 1\nreserve\n}") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClinic(t)
			change(c)
			if r := c.examine(); r.Status != doctor.OK {
				t.Errorf("the report of a good set-up:\n%s", r)
			}
		})
	}
}

// listening is a handler that notes on how many TCP ports this process listens.
type listening struct{}

// noted is what the handler of the last request has noted. Tests run one after another.
var noted int

// CaddyModule implements caddy.Module.
func (listening) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.doctor_tests", New: func() caddy.Module { return listening{} }}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (listening) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	noted = listeners()
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(listening{})
	httpcaddyfile.RegisterHandlerDirective("doctor_tests", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return listening{}, nil })
	httpcaddyfile.RegisterDirectiveOrder("doctor_tests", httpcaddyfile.Before, "reverse_proxy")
}

// listeners counts the TCP ports on which this process listens. Zero: it cannot be seen.
func listeners() (n int) {
	own := map[string]bool{}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		target, _ := os.Readlink(fd)
		own[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
	}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 9 && fields[3] == "0A" && own[fields[9]] {
				n++
			}
		}
	}
	return n
}

// TestTheCopyOfTheSiteListensNowhere: the copy has less protection than the site, and every
// user of the machine can reach loopback.
func TestTheCopyOfTheSiteListensNowhere(t *testing.T) {
	c := newClinic(t)
	c.change("public /open/*\n\t}", "public /open/*\n}\ndoctor_tests")
	noted = 0
	r, want := c.examine(), listeners()
	if want == 0 || noted != want || r.Status != doctor.OK {
		t.Errorf("while a request is served the process listens on %d ports, want %d as before:\n%s", noted, want, r)
	}
}

// answer makes an endpoint of the provider give the same answer to everybody. A redirect leads
// to an error page.
func (c *clinic) answer(path string, status int, body string) {
	provider := c.provider
	c.provider = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			provider.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", "/error")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

func TestDoctorWarnsOfDoubtfulAnswersOfTheProvider(t *testing.T) {
	for name, test := range map[string]struct {
		breakIt func(c *clinic)
		check   string
		words   []string // nil: all is right
	}{
		"too many requests": {
			func(c *clinic) { c.answer(simulator.UserInfoPath, http.StatusTooManyRequests, "{}") },
			"userinfo endpoint",
			[]string{"429", "could not be checked"},
		},
		"a user for every token": {
			func(c *clinic) { c.answer(simulator.UserInfoPath, http.StatusOK, `{"id":1}`) },
			"userinfo endpoint",
			[]string{"accepts a made-up access token"},
		},
		"success is false": {func(c *clinic) { c.answer(simulator.UserInfoPath, http.StatusOK, `{"success": false}`) }, "", nil},
		"tokens for every code": {func(c *clinic) {
			c.answer(simulator.TokenPath, http.StatusOK, `{"access_token":"a","token_type":"Bearer","expires_in":60}`)
		}, "token endpoint", []string{"gives tokens for a made-up code"}},
		"an unknown error": {
			func(c *clinic) { c.answer(simulator.TokenPath, http.StatusBadRequest, `{"error":"odd"}`) },
			"token endpoint",
			[]string{"could not be seen"},
		},
		"a clock that is half a minute slow": {
			func(c *clinic) { c.provider = withDate(c.provider, time.Now().Add(30*time.Second)) },
			"clock",
			[]string{"behind the provider's"},
		},
		"the time of a cache": {func(c *clinic) {
			provider := withDate(c.provider, time.Now().Add(-time.Hour))
			c.provider = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Age", "3600")
				provider.ServeHTTP(w, r)
			})
		}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClinic(t)
			test.breakIt(c)
			if test.words != nil {
				c.want(doctor.Warning, test.check, test.words...)
			} else if r := c.examine(); r.Status != doctor.OK {
				t.Errorf("the report of a good provider:\n%s", r)
			}
		})
	}
}

func TestDoctorJudgesTheProxyThatEndsTLS(t *testing.T) {
	inFront := func() *clinic {
		c := newClinic(t)
		c.serveAt("http://app.example.com")
		c.register("https://app.example.com/oauth/callback")
		return c
	}
	c := inFront()
	c.wantAmong(doctor.Warning, "proxy buffers", "a proxy buffer of 4096 bytes")
	c = inFront()
	c.flags = []string{"--token-bytes", "9000"}
	c.wantAmong(doctor.Failure, "proxy buffers", "9000 bytes do not fit into cookies", "store redis")
}

func TestDoctorExaminesOnlyTheNamedSite(t *testing.T) {
	c := newClinic(t)
	_, second, _ := strings.Cut(c.caddyfile, "}\n"+site)
	c.caddyfile += "http://127.0.0.1:8081" + strings.Replace(second, c.redirectURI, "http://127.0.0.1:8081/oauth/callback", 1)
	c.flags = []string{"--site", "127.0.0.1:8081"}
	for _, f := range c.examine().Findings {
		if f.Site != "" && f.Site != "http://127.0.0.1:8081" {
			t.Errorf("a finding about %s", f.Site)
		}
	}
}

func TestDoctorSaysThatTollgateHasMadeASecret(t *testing.T) {
	c := newClinic(t)
	c.change("secret {file."+c.secretFile+"}", "session {\nstore storage\n}")
	c.want(doctor.Warning, "secret", "makes one after its first start")
	if err := os.MkdirAll(filepath.Join(c.storage, "tollgate"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.storage, keys.StoredSecretKey), []byte(keys.NewSecret()), 0o600); err != nil {
		t.Fatal(err)
	}
	c.want(doctor.Warning, "secret", "has made one")
}

func TestTheUpstreamCheckKnowsWhatItHasSeen(t *testing.T) {
	c := newClinic(t)
	c.change("admin off", "admin off\norder tollgate after reverse_proxy")
	c.change("public /open/*", "identity none")
	c.want(doctor.Failure, "upstream", "receives the session cookie")
	c = newClinic(t)
	c.change("reverse_proxy 127.0.0.1:9", "respond 200\nreverse_proxy 127.0.0.1:9")
	c.want(doctor.Warning, "upstream", "no request reached a reverse_proxy")

	t.Setenv("TMPDIR", t.TempDir())
	c = newClinic(t)
	c.change("reverse_proxy 127.0.0.1:9", "abort /private/*\nreverse_proxy 127.0.0.1:9")
	if r := c.examine(); r.Status != doctor.OK {
		t.Errorf("a site that aborts some requests:\n%s", r)
	}
	if left, err := filepath.Glob(os.TempDir() + "/tollgate-doctor-*"); err != nil || left != nil {
		t.Errorf("doctor has left %v (%v)", left, err)
	}
}

// oddStorage is a storage that is slow, or returns other values than were written.
type oddStorage struct {
	certmagic.FileStorage
	How string `json:"how"`
}

// CaddyModule implements caddy.Module.
func (*oddStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.doctor_tests", New: func() caddy.Module { return &oddStorage{} }}
}

// UnmarshalCaddyfile reads how the storage is odd, and its folder.
func (s *oddStorage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&s.How, &s.Path) {
		return d.ArgErr()
	}
	return nil
}

// CertMagicStorage implements caddy.StorageConverter.
func (s *oddStorage) CertMagicStorage() (certmagic.Storage, error) { return s, nil }

// Store implements certmagic.Storage.
func (s *oddStorage) Store(ctx context.Context, key string, value []byte) error {
	if s.How == "slow" {
		time.Sleep(150 * time.Millisecond) // more than doctor accepts
	}
	return s.FileStorage.Store(ctx, key, value)
}

// Load implements certmagic.Storage.
func (s *oddStorage) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.FileStorage.Load(ctx, key)
	if s.How == "other" && err == nil {
		value = append(value, '!')
	}
	return value, err
}

func init() { caddy.RegisterModule(&oddStorage{}) }

func TestDoctorMeasuresAndReadsTheStorage(t *testing.T) {
	for how, test := range map[string]struct {
		status doctor.Status
		word   string
	}{
		"slow":  {doctor.Warning, "is slow: a write took"},
		"other": {doctor.Failure, "returned another value than was written"},
	} {
		c := newClinic(t)
		c.change("file_system "+c.storage, "doctor_tests "+how+" "+c.storage)
		c.change("public /open/*", "session {\nstore storage\n}")
		c.isSlow = how == "slow"
		c.want(test.status, "session store", test.word)
	}
}
