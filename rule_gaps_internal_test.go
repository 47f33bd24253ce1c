package tollgate

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// TestExamplesLeaveNoPathOpen: what people copy has no such gap.
func TestExamplesLeaveNoPathOpen(t *testing.T) {
	manualtest.SetEnv(t)
	files, err := filepath.Glob("examples/*/Caddyfile")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d examples: %v", len(files), err)
	}
	texts := map[string]string{}
	for _, file := range files {
		texts[file] = manualtest.ReadFile(t, file)
	}
	for _, block := range manualtest.Blocks(t, "caddyfile") {
		if strings.Contains(block.Text, "require") {
			texts[block.Where] = block.Text
		}
	}
	blocks := 0
	for file, text := range texts {
		_, handlers, err := provision(text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, h := range handlers {
			blocks += len(h.settings.required)
			for _, gap := range policy.RuleGaps(h.settings.public, h.settings.optional, h.settings.required) {
				t.Errorf("%s: %s", file, gap)
			}
			h.Cleanup()
		}
	}
	if blocks < 5 {
		t.Errorf("looked at %d require blocks, want at least 5", blocks)
	}
}
