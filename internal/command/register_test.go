package command

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const testDeveloperToken = "developer_token_of_the_tests"

// registration is a provider to register at, and a folder to register from.
type registration struct {
	t        *testing.T
	provider *simulator.Provider
	url      string
	envFile  string
}

func newRegistration(t *testing.T) *registration {
	t.Setenv(envDeveloperToken, testDeveloperToken)
	t.Setenv("TMPDIR", t.TempDir())
	provider := simulator.New(simulator.Options{DeveloperToken: testDeveloperToken})
	server := httptest.NewServer(provider)
	t.Cleanup(server.Close)
	return &registration{t: t, provider: provider, url: server.URL, envFile: filepath.Join(t.TempDir(), "app.env")}
}

// answering replaces the provider by one that always answers the same.
func (r *registration) answering(handler http.HandlerFunc) {
	server := httptest.NewServer(handler)
	r.t.Cleanup(server.Close)
	r.url = server.URL
}

func (r *registration) run(more ...string) commandtest.Result {
	r.t.Helper()
	args := []string{
		"register-app", "--name", "My App", "--description", "What it does",
		"--redirect-uri", "https://app.example.com/oauth/callback", "--base-url", r.url, "--env-file", r.envFile,
	}
	return commands.Run(append(args, more...)...)
}

func (r *registration) asked() int { return r.provider.Count(simulator.Apps) }

// env reads the env file, and checks who can read it.
func (r *registration) env() map[string]string {
	r.t.Helper()
	info, err := os.Stat(r.envFile)
	if err != nil {
		r.t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		r.t.Errorf("the env file has mode %v", info.Mode())
	}
	content, err := os.ReadFile(r.envFile)
	if err != nil {
		r.t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		env[name] = value
	}
	return env
}

// wantNothingLeft checks that a run that failed left no file.
func (r *registration) wantNothingLeft() {
	r.t.Helper()
	for _, folder := range []string{filepath.Dir(r.envFile), os.TempDir()} {
		entries, err := os.ReadDir(folder)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, entry := range entries {
			r.t.Errorf("%s was left in %s", entry.Name(), folder)
		}
	}
}

func TestRegisterAppWritesTheEnvFileAndPrintsACaddyfile(t *testing.T) {
	r := newRegistration(t)
	got := r.run()
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	env := r.env()
	if !strings.HasPrefix(env["OAUTH_CLIENT_ID"], "client_") || !strings.HasPrefix(env["OAUTH_CLIENT_SECRET"], "secret_") ||
		env["OAUTH_REDIRECT_URI"] != "https://app.example.com/oauth/callback" || len(env) != 3 {
		t.Errorf("the env file holds %v", env)
	}
	for _, c := range []struct{ name, secret string }{{"client secret", env["OAUTH_CLIENT_SECRET"]}, {"developer token", testDeveloperToken}} {
		if strings.Contains(got.All(), c.secret) {
			t.Errorf("the %s was printed:\n%s", c.name, got.All())
		}
	}
	want := `app.example.com {
	tollgate {
		provider aihubmix {
			base_url ` + r.url + `
			client_id {env.OAUTH_CLIENT_ID}
			client_secret {env.OAUTH_CLIENT_SECRET}
		}
		redirect_uri {env.OAUTH_REDIRECT_URI}
	}
	reverse_proxy localhost:3000
}
`
	if got.Out != want {
		t.Errorf("printed\n%s\nwant\n%s", got.Out, want)
	}
	if formatted := string(caddyfile.Format([]byte(got.Out))); got.Out != formatted {
		t.Errorf("printed\n%s\ncaddy fmt makes\n%s", got.Out, formatted)
	}
	sent := r.provider.Requests(simulator.Apps)[0]
	var body map[string]string
	if err := json.Unmarshal([]byte(sent.Body), &body); err != nil || body["name"] != "My App" || body["description"] != "What it does" {
		t.Errorf("sent %s: %v", sent.Body, err)
	}
}

func TestExistingEnvFileIsKeptWithoutARegistration(t *testing.T) {
	r := newRegistration(t)
	if err := os.WriteFile(r.envFile, []byte("in use"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := r.run()
	if got.Err == nil || !strings.Contains(got.Err.Error(), "exists") || !strings.Contains(got.Err.Error(), "--force") {
		t.Errorf("got %v", got.Err)
	}
	if content, _ := os.ReadFile(r.envFile); string(content) != "in use" || r.asked() != 0 {
		t.Errorf("the file holds %q, and the provider was asked %d times", content, r.asked())
	}

	if got := r.run("--force"); got.Err != nil {
		t.Fatal(got.Err)
	}
	if env := r.env(); env["OAUTH_CLIENT_SECRET"] == "" {
		t.Errorf("the env file holds %v", env)
	}
	if entries, _ := os.ReadDir(filepath.Dir(r.envFile)); len(entries) != 1 {
		t.Errorf("the folder holds %v", entries)
	}
}

func TestFailedRegistrationKeepsTheOldEnvFile(t *testing.T) {
	r := newRegistration(t)
	if err := os.WriteFile(r.envFile, []byte("in use"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.answering(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if got := r.run("--force"); got.Err == nil {
		t.Error("it succeeded")
	}
	content, _ := os.ReadFile(r.envFile)
	if entries, _ := os.ReadDir(filepath.Dir(r.envFile)); string(content) != "in use" || len(entries) != 1 {
		t.Errorf("the file holds %q, the folder %v", content, entries)
	}
}

func TestOnlyRegularFilesAreReplaced(t *testing.T) {
	r := newRegistration(t)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Symlink(elsewhere, r.envFile); err != nil {
		t.Fatal(err)
	}
	for _, more := range [][]string{nil, {"--force"}, {"--env-file", t.TempDir(), "--force"}} {
		if got := r.run(more...); got.Err == nil || !strings.Contains(got.Err.Error(), "not a regular file") {
			t.Errorf("%v: got %v", more, got.Err)
		}
	}
	if got := r.run("--env-file", filepath.Join(elsewhere, "app.env")); got.Err == nil || !strings.HasPrefix(got.Err.Error(), "--env-file: ") {
		t.Errorf("a folder that is not there: got %v", got.Err)
	}
	if r.asked() != 0 {
		t.Error("the provider was asked")
	}
}

func TestDeveloperTokenComesFromTheEnvironment(t *testing.T) {
	r := newRegistration(t)
	t.Setenv(envDeveloperToken, "")
	if got := r.run(); got.Err == nil || !strings.Contains(got.Err.Error(), envDeveloperToken) {
		t.Errorf("without a token: got %v", got.Err)
	}
	t.Setenv(envDeveloperToken, "two\nlines")
	if got := r.run(); got.Err == nil || strings.Contains(got.All(), "lines") {
		t.Errorf("with a broken token: got %v", got.Err)
	}
	if r.asked() != 0 {
		t.Error("the provider was asked")
	}
	r.wantNothingLeft()
	t.Setenv(envDeveloperToken, testDeveloperToken+"\n")
	if got := r.run(); got.Err != nil {
		t.Errorf("with a newline at its end: got %v", got.Err)
	}
}

func TestRefusalUnderStatus200IsAFailure(t *testing.T) {
	r := newRegistration(t)
	t.Setenv(envDeveloperToken, "a_wrong_token")
	got := r.run()
	if got.Err == nil || got.Err.Error() != "the provider did not register the application: invalid developer token" {
		t.Errorf("got %v", got.Err)
	}
	if r.asked() != 1 {
		t.Errorf("the provider was asked %d times", r.asked())
	}
	r.wantNothingLeft()
}

func TestRegistrationAnswersAreNotTrusted(t *testing.T) {
	const good = `{"success":true,"message":"ok","data":{"client_id":"c","client_secret":"the-secret"}}`
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"no client_secret", answerJSON(200, `{"success":true,"data":{"client_id":"c"}}`), "no client_secret"},
		{"no client_id", answerJSON(200, `{"success":true,"data":{"client_secret":"the-secret"}}`), "no client_id"},
		{"no data", answerJSON(200, `{"success":true,"message":"ok"}`), "no client_id"},
		{"no success", answerJSON(200, `{"data":{"client_id":"c","client_secret":"the-secret"}}`), "did not register"},
		{"no JSON", answerJSON(200, `<html>`), "not the expected JSON"},
		{"another type", answerJSON(200, `{"success":"yes"}`), "not the expected JSON"},
		{"two answers", answerJSON(200, good+good), "not the expected JSON"},
		{"401", answerJSON(401, `{"success":false,"message":"expired"}`), "does not accept the developer token (status 401): expired"},
		{"500", answerJSON(500, `oops`), "(status 500)"},
		{"an endless answer", func(w http.ResponseWriter, _ *http.Request) {
			for range 512 {
				w.Write([]byte(strings.Repeat(" ", 1024)))
			}
		}, "too large; the application may have been registered"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "redirect (status 307)"},
		{"a cut connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "the connection was cut; the application may have been registered"},
		{
			"a message for the terminal",
			answerJSON(200, `{"success":false,"message":"a\u001b[31m red\r\nline\u202e, `+testDeveloperToken+` `+strings.Repeat("q", 500)+`"}`),
			"the application: a [31m red line , [developer token] qqq",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRegistration(t)
			var asked atomic.Int64
			r.answering(func(w http.ResponseWriter, req *http.Request) {
				asked.Add(1)
				test.handler(w, req)
			})
			got := r.run()
			if got.Err == nil || !strings.Contains(got.Err.Error(), test.want) {
				t.Errorf("got %v, want %s", got.Err, test.want)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("the provider was asked %d times", n)
			}
			if text := got.All(); strings.Contains(text, testDeveloperToken) || strings.Contains(text, "the-secret") || len(text) > 400 || strings.ContainsAny(text, "\n\r\x1b") {
				t.Errorf("printed %q", text)
			}
			r.wantNothingLeft()
		})
	}
}

func answerJSON(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}

func TestCredentialsAreKeptIfTheEnvFileCannotBeWritten(t *testing.T) {
	for _, c := range []struct{ name, secret string }{{"a quote", "it's"}, {"a comment", "a#b"}, {"two lines", "a\nb"}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRegistration(t)
			data, err := json.Marshal(map[string]any{"success": true, "data": oauth.RegisteredApp{ClientID: "c", ClientSecret: c.secret}})
			if err != nil {
				t.Fatal(err)
			}
			r.answering(answerJSON(200, string(data)))
			got := r.run()
			if got.Err == nil || strings.Contains(got.All(), c.secret) {
				t.Fatalf("got %v", got.Err)
			}
			if _, err := os.Stat(r.envFile); !os.IsNotExist(err) {
				t.Errorf("the env file: %v", err)
			}
			wantSaved(t, got.Err, c.secret)
		})
	}

	t.Run("the folder is gone", func(t *testing.T) {
		r := newRegistration(t)
		r.envFile = filepath.Join(t.TempDir(), "folder", "app.env")
		if err := os.Mkdir(filepath.Dir(r.envFile), 0o700); err != nil {
			t.Fatal(err)
		}
		r.answering(func(w http.ResponseWriter, req *http.Request) {
			os.RemoveAll(filepath.Dir(r.envFile))
			answerJSON(200, `{"success":true,"data":{"client_id":"c","client_secret":"the-secret"}}`)(w, req)
		})
		wantSaved(t, r.run("--force").Err, "the-secret")
	})
}

// wantSaved finds the one file in the temporary folder that an error names.
func wantSaved(t *testing.T, err error, secret string) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), "tollgate-credentials-*.json"))
	if err == nil || len(found) != 1 || !strings.Contains(err.Error(), found[0]) {
		t.Fatalf("got %v; there is %v", err, found)
	}
	info, statErr := os.Stat(found[0])
	content, readErr := os.ReadFile(found[0])
	var saved oauth.RegisteredApp
	if statErr != nil || readErr != nil || info.Mode() != fs.FileMode(0o600) || json.Unmarshal(content, &saved) != nil || saved.ClientSecret != secret || saved.ClientID != "c" {
		t.Errorf("the file has mode %v and holds %s", info.Mode(), content)
	}
}

func TestBadRegistrationFlagsFailBeforeAnyRequest(t *testing.T) {
	r := newRegistration(t)
	for _, test := range []struct{ flag, value, want string }{
		{"--name", " ", "--name is required"},
		{"--redirect-uri", "", "--redirect-uri is required"},
		{"--redirect-uri", "app.example.com/cb", "absolute"},
		{"--redirect-uri", "ftp://app.example.com/cb", "absolute"},
		{"--redirect-uri", "https:///cb", "absolute"},
		{"--redirect-uri", "http://app.example.com/cb", "must be https"},
		{"--redirect-uri", "http://127.0.0.1.example.com/cb", "must be https"},
		{"--redirect-uri", "https://user@app.example.com/cb", "no user"},
		{"--redirect-uri", "https://app.example.com/cb?x=1", "no user, query"},
		{"--redirect-uri", "https://app.example.com/cb?", "no user, query"},
		{"--redirect-uri", "https://app.example.com/cb#f", "no user, query or fragment"},
		{"--redirect-uri", "https://app.example.com/cb#", "no user, query or fragment"},
		{"--redirect-uri", "https://app.example.com", "plain"},
		{"--redirect-uri", "https://app.example.com/", "path of its own"},
		{"--redirect-uri", "https://app.example.com/cb/", "plain"},
		{"--redirect-uri", "https://app.example.com/a/../cb", "plain"},
		{"--redirect-uri", "https://app.example.com/c%62", "plain"},
		{"--redirect-uri", "https://app.example.com/c b", "plain"},
		{"--redirect-uri", "https://app(x).example.com/cb", "plain"},
		{"--redirect-uri", "https://:443/cb", "plain"},
		{"--base-url", "http://api.example.com", "--base-url: must be https"},
		{"--base-url", "https://u:p@api.example.com", "--base-url: must have no user"},
		{"--base-url", "https://api.example.com?x", "--base-url: must have no user, query"},
		{"--base-url", "api.example.com", "--base-url: is not"},
		{"--env-file", "", "--env-file: is empty"},
	} {
		got := r.run(test.flag, test.value)
		if got.Err == nil || !strings.HasPrefix(got.Err.Error(), test.flag) || !strings.Contains(got.Err.Error(), test.want) {
			t.Errorf("%s %q: got %v, want %s", test.flag, test.value, got.Err, test.want)
		}
	}
	if r.asked() != 0 {
		t.Errorf("the provider was asked %d times", r.asked())
	}
	r.wantNothingLeft()
}
