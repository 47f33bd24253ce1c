package tollgate_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// writeSecret writes a file with a secret.
func writeSecret(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rolling are two gateways on two machines: each has a file of its own with the secrets.
type rolling struct {
	*gatewaytest.Fleet
	files    [2]string
	browsers []*gatewaytest.Browser
}

func newRolling(t *testing.T, session string) *rolling {
	t.Helper()
	r := &rolling{files: [2]string{filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "secret")}}
	for _, file := range r.files {
		writeSecret(t, file, gatewaytest.Secret+"\n")
	}
	r.Fleet = gatewaytest.NewFleetWith(t, session+"\n\t\t}\n\t\tassertion {", time.Second, "{file."+r.files[0]+"}", "{file."+r.files[1]+"}")
	return r
}

// roll makes the next step with the file of the first gateway, and waits until the gateway
// has read it.
func (r *rolling) roll(want string) {
	r.T.Helper()
	got := commands.Run("keygen", "--roll", r.files[0], "--force")
	if got.Err != nil || !strings.HasPrefix(got.Out, want) {
		r.T.Fatalf("got %s, want %s", got.All(), want)
	}
	r.waitFor(0)
}

// copyFile copies the file to the second gateway, and waits until the gateway has read it.
func (r *rolling) copyFile() {
	r.T.Helper()
	writeSecret(r.T, r.files[1], manualtest.ReadFile(r.T, r.files[0]))
	r.waitFor(1)
}

// waitFor waits until a gateway publishes the assertion keys of all secrets in its file, in
// the same order.
func (r *rolling) waitFor(which int) {
	r.T.Helper()
	secrets, err := keys.ParseSecrets(manualtest.ReadFile(r.T, r.files[which]))
	if err != nil {
		r.T.Fatal(err)
	}
	ring, err := keys.NewRing(secrets, gatewaytest.ClientID, r.URL+"/oauth/callback")
	if err != nil {
		r.T.Fatal(err)
	}
	want, _ := json.Marshal(ring.Assertion.Public)
	b := r.NewBrowser()
	gatewaytest.Eventually(r.T, "the gateway uses the secrets in its file", func() bool {
		return strings.TrimSpace(b.Get(r.Replicas[which].At("/oauth/jwks.json")).Text) == string(want)
	})
}

// wantNobodyLost signs in another user, and asks both gateways for everybody's page.
func (r *rolling) wantNobodyLost(when string) {
	r.T.Helper()
	r.browsers = append(r.browsers, r.NewBrowser().SignIn())
	for round := range 2 {
		for i, b := range r.browsers {
			for j := range r.Replicas {
				replica := r.Replicas[(i+j+round)%len(r.Replicas)]
				if a := b.Get(replica.At("/")); a.StatusCode != http.StatusOK {
					r.T.Errorf("%s: the session of browser %d at gateway %s: status %d", when, i, replica.URL, a.StatusCode)
				}
			}
		}
	}
}

func TestASecretIsRolledWithoutLosingASession(t *testing.T) {
	for _, store := range []string{"store storage", "store cookie"} {
		t.Run(store, func(t *testing.T) {
			r := newRolling(t, store)
			r.wantNobodyLost("before")
			old := r.browsers[0].Copy()
			for _, step := range []string{"Step 1 of 3 done", "Step 2 of 3 done", "Step 3 of 3 done"} {
				r.roll(step)
				r.wantNobodyLost(step + " at the first gateway")
				r.copyFile()
				r.wantNobodyLost(step + " at both gateways")
			}
			if a := old.Get(r.Replicas[0].At("/")); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("a cookie of the removed secret: status %d, want 401", a.StatusCode)
			}
		})
	}
}

func TestANewClientSecretIsSentWithoutAReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "client_secret")
	s := gatewaytest.New(t, gatewaytest.Options{})
	writeSecret(t, file, gatewaytest.ClientSecret)
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_secret "+gatewaytest.ClientSecret, "client_secret x{file."+file+"}", 1)
	setSecret := func(secret string) {
		s.Provider.SetClient(simulator.Client{ID: gatewaytest.ClientID, Secret: secret, RedirectURIs: []string{s.URL + "/oauth/callback"}})
	}
	setSecret("x" + gatewaytest.ClientSecret)
	s.Load()
	s.NewBrowser().SignIn()

	signsIn := func() bool {
		b := s.NewBrowser()
		b.Follow(b.Visit("/oauth/start").Location())
		return isSignedIn(b)
	}
	for _, bad := range []string{"", "two\nlines", " blank "} {
		writeSecret(t, file, bad)
		time.Sleep(200 * time.Millisecond) // ten looks at the file; nothing else can be seen
		if !signsIn() {
			t.Fatalf("a file with %q replaced the client secret", bad)
		}
	}
	b := s.NewBrowser().SignIn()
	setSecret("xnext_secret")
	s.Clock.Advance(3 * time.Hour) // the access token has expired
	if a := b.Get("/"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("while the provider refuses the client: status %d, want 503", a.StatusCode)
	}
	writeSecret(t, file, "next_secret\n")
	gatewaytest.Eventually(t, "the new client secret is sent", signsIn)
	gatewaytest.Eventually(t, "the session goes on", func() bool { s.Clock.Advance(time.Minute); return b.Get("/").StatusCode == http.StatusOK })
}

func TestARedisPasswordIsReplacedWithoutAnOutage(t *testing.T) {
	server := redistest.Start(t)
	server.Must("ACL", "SETUSER", "gateway", "on", ">first-password", "~*", "&*", "+@all")
	type gateway struct {
		*gatewaytest.Site
		file    string
		browser *gatewaytest.Browser
	}
	var gateways []gateway
	for range 2 {
		g := gateway{file: filepath.Join(t.TempDir(), "password")}
		writeSecret(t, g.file, "first-password")
		g.Site = gatewaytest.New(t, gatewaytest.Options{InTollgate: "session {\nstore redis {\naddress " + server.Address() +
			"\nusername gateway\npassword {file." + g.file + "}\n}\n}"})
		g.browser = g.NewBrowser().SignIn()
		gateways = append(gateways, g)
	}
	wantNobodyRefused := func(when string) {
		t.Helper()
		for i, g := range gateways {
			for _, b := range []*gatewaytest.Browser{g.browser, g.NewBrowser().SignIn()} {
				if a := b.Get("/"); a.StatusCode != http.StatusOK {
					t.Errorf("%s, gateway %d: status %d", when, i, a.StatusCode)
				}
			}
		}
	}
	connections := func() int { return strings.Count(server.Must("CLIENT", "LIST"), "user=gateway") }

	wantNobodyRefused("before")
	server.Must("ACL", "SETUSER", "gateway", ">next-password")
	for _, g := range gateways {
		before := connections()
		writeSecret(t, g.file, "next-password\n")
		gatewaytest.Eventually(t, "the gateway connects with the new password", func() bool { return connections() > before })
		wantNobodyRefused("with a new password at one gateway or both")
	}
	server.Must("ACL", "SETUSER", "gateway", "<first-password")
	server.Must("CLIENT", "KILL", "USER", "gateway")
	wantNobodyRefused("without the previous password")
}

func TestSecretFilesAreLoggedWithoutTheirContent(t *testing.T) {
	secretFile, clientFile := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "client_secret")
	writeSecret(t, secretFile, "# of the shop\n"+gatewaytest.Secret+"\n\n")
	writeSecret(t, clientFile, gatewaytest.ClientSecret)
	r := gatewaytest.Prepare(t, gatewaytest.RunOptions{})
	r.Caddyfile = strings.NewReplacer("secret "+gatewaytest.Secret, "secret {file."+secretFile+"}",
		"client_secret "+gatewaytest.ClientSecret, "client_secret {file."+clientFile+"}").Replace(r.Caddyfile)
	r.Start()
	b := r.NewBrowser().SignIn()
	logFile := filepath.Join(r.Logs, "default.log")
	wantLine := func(words ...string) {
		t.Helper()
		gatewaytest.Eventually(t, "the log has a line with "+strings.Join(words, ", "), func() bool {
			for line := range strings.Lines(manualtest.ReadFile(t, logFile)) {
				if containsAll(line, words...) {
					return true
				}
			}
			return false
		})
	}

	next := keys.NewSecret()
	writeSecret(t, secretFile, next+"\nweakPASSWORD\n")
	writeSecret(t, clientFile, "halfSECRET \n")
	wantLine(`"level":"error"`, "secret not replaced", `"option":"secret"`, "line 2")
	wantLine(`"level":"error"`, "secret not replaced", `"option":"provider.client_secret"`)
	wantSignedIn(t, "with a file that cannot be used", b, true)

	writeSecret(t, secretFile, next+"\n"+gatewaytest.Secret+"\n")
	wantLine(`"level":"info"`, "secret replaced", `"option":"secret"`)
	wantSignedIn(t, "with the new secret", b, true)
	wantLine(`"level":"info"`, "a previous secret is still in use", `"cookies":1`)
	log := manualtest.ReadFile(t, logFile)
	for _, text := range []string{next, gatewaytest.Secret, "weakPASSWORD", "halfSECRET"} {
		if strings.Contains(log, text) {
			t.Errorf("the log contains %q", text)
		}
	}
}

func containsAll(line string, words ...string) bool {
	for _, word := range words {
		if !strings.Contains(line, word) {
			return false
		}
	}
	return true
}

func TestKeygenRollKeepsTheFile(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "secret")
	writeSecret(t, file, gatewaytest.Secret+"\n")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder, "link")
	if err := os.Symlink("secret", link); err != nil {
		t.Fatal(err)
	}
	if got := commands.Run("keygen", "--roll", link); got.Err != nil || !strings.Contains(got.Out, "Step 1 of 3 done") || strings.Contains(got.All(), gatewaytest.Secret) {
		t.Fatalf("through a link: %s", got.All())
	}
	info, err := os.Lstat(file)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("the file is %v, %v, want mode 0640", info, err)
	}
	if target, err := os.Readlink(link); err != nil || target != "secret" {
		t.Errorf("the link is %q, %v", target, err)
	}
	before := manualtest.ReadFile(t, file)
	commandtest.WantError(t, commands.Run("keygen", "--roll", file), "nothing was changed", "--force")
	commandtest.WantError(t, commands.Run("keygen", "--roll", filepath.Join(folder, "none")), "does not exist", "caddy tollgate keygen >")
	commandtest.WantError(t, commands.Run("keygen", "--roll", file, "--lifetime", "31d"), "--lifetime")
	commandtest.WantError(t, commands.Run("keygen", "--force"), "--roll")
	writeSecret(t, file+".rolling", "")
	commandtest.WantError(t, commands.Run("keygen", "--roll", file, "--force"), "another command", file+".rolling")
	if got := manualtest.ReadFile(t, file); got != before {
		t.Errorf("a refused command has changed the file:\n%s", got)
	}
	if err := os.Remove(file + ".rolling"); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "hardlink")
	if err := os.Link(file, other); err != nil {
		t.Fatal(err)
	}
	commandtest.WantError(t, commands.Run("keygen", "--roll", file, "--force"), "has other names", "symbolic links")
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	commands.Run("keygen", "--roll", file, "--force")
	commandtest.WantError(t, commands.Run("keygen", "--roll", file), "nothing was changed", "unused from")
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v, want the file and the link", entries, err)
	}
}
