package tollgate_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/records"
)

func TestExamplesAdaptAndLoad(t *testing.T) {
	manualtest.SetEnv(t)
	folders, err := filepath.Glob("examples/*/Caddyfile")
	if err != nil || len(folders) < 3 {
		t.Fatalf("found %d examples: %v", len(folders), err)
	}
	for _, file := range folders {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			text := manualtest.ReadFile(t, file)
			if formatted := caddyfile.Format([]byte(text)); string(formatted) != text {
				t.Errorf("%s is not formatted: run `caddy fmt --overwrite %s`", file, file)
			}
			_, handlers, err := gatewaytest.Provision(text)
			if err != nil {
				t.Fatal(err)
			}
			if len(handlers) == 0 {
				t.Errorf("%s has no tollgate", file)
			}
			for _, h := range handlers {
				if _, onServer := h.Internals().Store.(*records.Tickets); onServer && len(h.Secret) == 0 {
					t.Errorf("%s keeps sessions on the server and sets no `secret`: the secret would be stored beside them", file)
				}
			}
			for _, h := range handlers {
				h.Cleanup()
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), "README.md")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExampleProxyCaddyfileIsFormatted(t *testing.T) {
	text := manualtest.ReadFile(t, "examples/forward-auth-caddy/proxy.Caddyfile")
	if string(caddyfile.Format([]byte(text))) != text {
		t.Error("examples/forward-auth-caddy/proxy.Caddyfile is not formatted: run `caddy fmt --overwrite` on it")
	}
}

func TestExampleMinimalIsTheSameInJSON(t *testing.T) {
	manualtest.SetEnv(t)
	adapted, err := gatewaytest.Adapt(manualtest.ReadFile(t, "examples/minimal/Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(adapted, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(manualtest.ReadFile(t, "examples/minimal/caddy.json")), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, handlers, err := gatewaytest.ProvisionJSON([]byte(manualtest.ReadFile(t, "examples/minimal/caddy.json"))); err != nil || len(handlers) != 1 {
		t.Errorf("loading the JSON: %d handlers, %v", len(handlers), err)
	} else {
		handlers[0].Cleanup()
	}
}

// TestManualShowsTheMinimalExample compares the manual with examples/minimal.
func TestManualShowsTheMinimalExample(t *testing.T) {
	manualtest.SetEnv(t)
	minimal := manualtest.ReadFile(t, "examples/minimal/Caddyfile")
	for _, page := range []string{"README.md", "docs/getting-started.md"} {
		if !strings.Contains(manualtest.ReadFile(t, page), "```caddyfile\n"+minimal+"```") {
			t.Errorf("%s does not show examples/minimal/Caddyfile", page)
		}
	}
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Handle []struct {
							Routes []struct{ Handle []json.RawMessage }
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(manualtest.ReadFile(t, "examples/minimal/caddy.json")), &config); err != nil {
		t.Fatal(err)
	}
	handler := string(config.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0].Routes[0].Handle[0])
	for _, block := range manualtest.Blocks(t, "json") {
		if json.Valid([]byte(block.Text)) && bytes.Equal(compact(t, block.Text), compact(t, handler)) {
			return
		}
	}
	t.Errorf("no JSON in the manual equals the handler of examples/minimal/caddy.json: %s", compact(t, handler))
}

// compact gives JSON with sorted members and no white space.
func compact(t *testing.T, text string) []byte {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(value)
	return b
}
