package tollgate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

func TestNoErrorRepeatsThePasswordInAnAddress(t *testing.T) {
	const password = "hunter2"
	for _, block := range []string{
		minimalBlock + "session {\nstore redis {\naddress redis://:hunter2@host\n}\n}",
		minimalBlock + "session {\nstore redis {\naddress user:hunter2@host:6379:1\n}\n}",
		strings.Replace(minimalBlock, "client_id id", "client_id id\nbase_url ftp://user:hunter2@x.example", 1),
		strings.Replace(minimalBlock, "client_id id", "client_id id\ntoken_endpoint user:hunter2@x.example", 1),
		strings.Replace(minimalBlock, "client_id id", "client_id id\nbase_url http://user:hunter2@x.example", 1),
		strings.Replace(minimalBlock, "https://app", "ftp://user:hunter2@app", 1),
		strings.Replace(minimalBlock, "https://app", "https://user:hunter2@app", 1),
		strings.Replace(minimalBlock, "https://app", "user:hunter2@app", 1),
	} {
		if _, err := adaptHandler(block); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%s\n  got %v", block, err)
		}
	}
}

// plantedSecrets are secrets by the part of them that no error may show.
var plantedSecrets = map[string]string{
	"9f86d081884c7d65": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	"b3ulvrgqe0m":      "B3uLvRgQe0mT5nYxKc7wZ2aHd9pJf4sV1iOq8kEXtGU",
	"tlz84jq0vbne":     "secret_tLz84Jq0VbNe",
	"hunter2":          "redis://:hunter2@host",
	"pa55word":         "https://user:pa55word@host/x",
}

// echoLog is a log in memory. Thousands of configurations would wait for the disk.
type echoLog struct{}

var echoed struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (echoLog) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.tollgate_tests", New: func() caddy.Module { return new(echoLog) }}
}

func (echoLog) String() string                                   { return "tollgate_tests" }
func (echoLog) WriterKey() string                                { return "tollgate_tests" }
func (echoLog) OpenWriter() (io.WriteCloser, error)              { return echoLog{}, nil }
func (*echoLog) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return nil }
func (echoLog) Close() error                                     { return nil }

func (echoLog) Write(line []byte) (int, error) {
	echoed.mu.Lock()
	defer echoed.mu.Unlock()
	return echoed.text.Write(line)
}

func init() { caddy.RegisterModule(echoLog{}) }

// echoTest plants secrets into configurations, and reads what is said of them.
type echoTest struct {
	t      *testing.T
	folder string
	faults int // how many configurations were refused
	logged int // how many bytes were logged
}

func newEchoTest(t *testing.T) *echoTest {
	e := &echoTest{t: t, folder: t.TempDir()}
	e.check("nothing", "-", e.Load([]byte(`{"logging":{"logs":{"default":{"writer":{"output":"tollgate_tests"},"level":"DEBUG"}}}}`)))
	t.Cleanup(func() { provisionEach(t, "http:// {\nrespond ok\n}\n") }) // the log goes back to where it was
	return e
}

// Load loads a configuration in JSON, and lets go of it.
func (e *echoTest) Load(config []byte) error {
	gatewaytest.Provisioning.Lock()
	defer gatewaytest.Provisioning.Unlock()
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		e.t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&parsed)
	if err != nil {
		return err
	}
	app, err := ctx.AppIfConfigured("http")
	if err != nil {
		return nil
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		for _, h := range gatewaytest.HandlersIn(server.Routes) {
			if err := h.Cleanup(); err != nil {
				e.t.Error(err)
			}
		}
	}
	return nil
}

// check fails the test if the error or the log shows part of a secret.
func (e *echoTest) check(where, part string, err error) {
	e.t.Helper()
	if err != nil {
		e.faults++
		if strings.Contains(strings.ToLower(err.Error()), part) {
			e.t.Errorf("%s: the error shows it: %v", where, err)
		}
	}
	echoed.mu.Lock()
	defer echoed.mu.Unlock()
	if log := echoed.text.String(); strings.Contains(strings.ToLower(log), part) {
		e.t.Errorf("%s: the log shows it: %s", where, log)
	}
	e.logged += echoed.text.Len()
	echoed.text.Reset()
}

// wantFaults fails the test if too few configurations were refused, or nothing was logged.
func (e *echoTest) wantFaults() {
	e.t.Helper()
	if e.faults < 500 || e.logged == 0 {
		e.t.Errorf("%d configurations were refused, and %d bytes were logged", e.faults, e.logged)
	}
}

// site is a Caddyfile that logs into the file.
func (e *echoTest) site(matcher, block string) string {
	return "{\nadmin off\nauto_https off\nlog {\noutput tollgate_tests\nlevel DEBUG\n}\nstorage file_system " + e.folder +
		"\n}\nhttp:// {\ntollgate " + matcher + " {\n" + block + "\n}\n}\n"
}

// echoBlocks are blocks that together have every word.
func echoBlocks() []string {
	pages := "\npages testdata/pages"
	return []string{
		strings.Replace(full, pages, "", 1), // they would be tried out each time
		minimalBlock + pages,
		strings.Replace(minimalBlock, "https://", "http://", 1) + "insecure_http",
		minimalBlock + "session {\nstore redis {\n" + strings.ReplaceAll(fullRedis, "{file}", "/nowhere") + "\n}\n}",
		minimalBlock + "session {\nstore redis {\naddress a:1\ncluster\n}\n}",
		fullSpending,
	}
}

// variants replaces each word of a block's line, and adds one.
func variants(line, secret string) []string {
	words := strings.Fields(line)
	if len(words) == 0 || words[0] == "}" {
		return nil
	}
	var lines []string
	for i := range words {
		if words[i] != "{" {
			lines = append(lines, strings.Join(slices.Concat(words[:i], []string{secret}, words[i+1:]), " "))
		}
	}
	end := len(words)
	if words[end-1] == "{" {
		end--
	}
	return append(lines, strings.Join(slices.Concat(words[:end], []string{secret}, words[end:]), " "))
}

func TestNoCaddyfileErrorShowsASecret(t *testing.T) {
	e := newEchoTest(t)
	planted := map[string]bool{"match": true}
	for part, secret := range plantedSecrets {
		t.Setenv("TOLLGATE_TEST_PLANTED", secret)
		for _, plant := range []string{secret, "{env.TOLLGATE_TEST_PLANTED}"} {
			try := func(where, text string) {
				config, err := gatewaytest.Adapt(text)
				if err == nil {
					err = e.Load(config)
				}
				e.check(where, part, err)
			}
			tried := map[string]bool{}
			try("the matcher", e.site(plant, minimalBlock))
			for _, block := range echoBlocks() {
				lines := strings.Split(block, "\n")
				for i, line := range lines {
					if tried[line] {
						continue
					}
					tried[line] = true
					for _, variant := range variants(line, plant) {
						planted[strings.Fields(line)[0]] = true
						try(variant, e.site("", strings.Join(slices.Concat(lines[:i], []string{variant}, lines[i+1:]), "\n")))
					}
				}
			}
		}
	}
	wantEveryOption(t, planted)
	e.wantFaults()
}

// wantEveryOption fails the test if an option was forgotten.
func wantEveryOption(t *testing.T, planted map[string]bool) {
	t.Helper()
	for _, row := range optionRows(t) {
		parts := strings.Split(row.word, " › ")
		without := row.word == "provider › preset" || row.word == "identity › presets" || row.word == "require › paths" || strings.HasPrefix(row.word, "require › budget › ")
		if !without && !planted[parts[len(parts)-1]] {
			t.Errorf("%s was not tried", row.word)
		}
	}
}

func TestNoJSONErrorShowsASecret(t *testing.T) {
	e := newEchoTest(t)
	planted := map[string]bool{}
	for part, secret := range plantedSecrets {
		t.Setenv("TOLLGATE_TEST_PLANTED", secret)
		for _, plant := range []string{secret, "{env.TOLLGATE_TEST_PLANTED}"} {
			p := planter{plant: plant, planted: planted, tried: map[string]bool{}}
			for _, block := range echoBlocks() {
				config, err := gatewaytest.Adapt(e.site("/x*", block))
				if err != nil {
					t.Fatal(err)
				}
				var parsed any
				if err := json.Unmarshal(config, &parsed); err != nil {
					t.Fatal(err)
				}
				p.try = func(where string) {
					config, err := json.Marshal(parsed)
					if err != nil {
						t.Fatal(err)
					}
					e.check(where, part, e.Load(config))
				}
				p.each(handlerJSON(parsed), "handler")
			}
		}
	}
	wantEveryOption(t, planted)
	e.wantFaults()
}

// handlerJSON finds the handler in a configuration.
func handlerJSON(value any) map[string]any {
	var parts []any
	switch value := value.(type) {
	case map[string]any:
		if value["handler"] == "tollgate" {
			return value
		}
		parts = slices.Collect(maps.Values(value))
	case []any:
		parts = value
	}
	for _, part := range parts {
		if found := handlerJSON(part); found != nil {
			return found
		}
	}
	return nil
}

// planter plants a secret at each place of a piece of JSON.
type planter struct {
	plant   string
	planted map[string]bool // by key
	tried   map[string]bool // by path and value, because the blocks share most of them
	try     func(where string)
}

// each replaces, one after the other, each value and each key in value.
func (p *planter) each(value any, path string) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range maps.Clone(value) {
			if key == "handler" {
				continue
			}
			p.planted[key] = true
			below := path + "." + key
			if !p.isNew(below, inner) {
				continue
			}
			value[key] = p.plant
			p.try(below)
			if !strings.HasPrefix(p.plant, "{env.") { // a key is never replaced, so it cannot show the value
				delete(value, key)
				value[p.plant] = inner
				p.try("the key " + below)
				delete(value, p.plant)
			}
			value[key] = inner
			p.each(inner, below)
		}
	case []any:
		for i, inner := range value {
			value[i] = p.plant
			p.try("an element of " + path)
			value[i] = inner
			p.each(inner, path)
		}
	}
}

// isNew reports whether this value was not at this path before.
func (p *planter) isNew(path string, value any) bool {
	text, _ := json.Marshal(value)
	key := path + string(text)
	defer func() { p.tried[key] = true }()
	return !p.tried[key]
}

// TestErrorsShowOrdinaryMistakes: a typing mistake must stay recognisable.
func TestErrorsShowOrdinaryMistakes(t *testing.T) {
	for value, want := range map[string]string{
		"redirekt_uri": "redirekt_uri", "client_secret_psot": "client_secret_psot", "X-Who Is": "X-Who Is", "0,50": "0,50",
		"http://app.example.com/oauth/callback": "http://app.example.com/oauth/callback", "/public/%61": "/public/%61", "/@me/*": "/@me/*",
		"pay2.shop.example.com": "pay2.shop.example.com", "10.0.0.0/33": "10.0.0.0/33", "2001:db8::/129": "2001:db8::/129", "testdata/logo2.final.svg": "testdata/logo2.final.svg",
		"https://:pw@host/x": "https://…@host/x", "user:pw@host:1": "…@host:1", "//user@host": "//…@host",
		"https://host.example/" + strings.Repeat("0f", 16): hidden, "a1b2c3d4e5f6a7b8": hidden, "/x/secret_1": hidden,
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl": hidden,
	} {
		if got := config.Shown(value); got != want {
			t.Errorf("%s: got %s, want %s", value, got, want)
		}
	}
}

func TestAnErrorShowsThePlaceholderOfAValue(t *testing.T) {
	read := map[string]string{"/a b/c": "{env.A}", "short": "{env.B}", "https://idp.example/": "{env.C}", "plain": "plain"}
	for text, want := range map[string]string{
		`open /a b/c: no such file`:           `open {env.A}: no such file`,
		`"short" is not a shortcut`:           `"{env.B}" is not a shortcut`,
		`"https://idp.example/token" is none`: `"{env.C}" is none`,
		`"idp.example" is not a host`:         `"{env.C}" is not a host`,
		`Short carries the token`:             `{env.B} carries the token`,
		`"plain" is plain`:                    `"plain" is plain`,
	} {
		if got := config.WithoutSecrets(errors.New(text), read); got.Error() != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestBracesInASecretAreNotShown(t *testing.T) {
	for _, secret := range []string{"x{hunter2}y", "x{a.hunter2}y", "{env.HOME}{hunter2}"} {
		block := strings.Replace(minimalBlock, "client_secret secret", "client_secret `"+secret+"`", 1)
		_, _, err := gatewaytest.Provision("{\nadmin off\n}\nhttp:// {\ntollgate {\n" + block + "\n}\n}\n")
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), `write \{ for a literal brace`) {
			t.Errorf("%s: got %v", secret, err)
		}
	}
}
