// Package manualtest helps tests that read the manual and the examples: their text, their
// fenced blocks, and the environment that they speak of.
//
// It loads no configuration: internal/gatewaytest does. It is apart from that package because
// tests in package tollgate use it, too. Begin with Blocks.
package manualtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// SetEnv sets the environment variables that the manual, the examples and deploy/ speak of.
func SetEnv(t *testing.T) {
	t.Helper()
	t.Setenv("OAUTH_CLIENT_ID", "client_abc")
	t.Setenv("OAUTH_CLIENT_SECRET", "secret_xyz")
	t.Setenv("OAUTH_REDIRECT_URI", "https://app.example.com/oauth/callback")
	t.Setenv("TOLLGATE_SECRET", keys.NewSecret())
	t.Setenv("REDIS_PASSWORD", "a-long-password")
}

// ReadFile returns the text of a file.
func ReadFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Pages returns the README and the pages below docs, by file name. Tests of the root package
// may call it.
func Pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("docs/*.md")
	if err != nil || len(files) < 10 {
		t.Fatalf("got %d pages in docs, want at least 10: %v", len(files), err)
	}
	pages := map[string]string{"README.md": ReadFile(t, "README.md")}
	for _, file := range files {
		pages[file] = ReadFile(t, file)
	}
	return pages
}

// Block is a fenced block of the manual. Where names it in a failure.
type Block struct{ Where, Text string }

var fencedBlock = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$")

// FencedBlocks returns the fenced blocks of one language in a text, in their order.
func FencedBlocks(text, language string) []string {
	var blocks []string
	for _, block := range fencedBlock.FindAllStringSubmatch(text, -1) {
		if block[1] == language {
			blocks = append(blocks, block[2])
		}
	}
	return blocks
}

// WithoutBlocks returns a text without its fenced blocks. A # in them begins a comment, and no
// heading.
func WithoutBlocks(text string) string { return fencedBlock.ReplaceAllString(text, "") }

// Blocks returns the fenced blocks of one language in the whole manual, page by page.
func Blocks(t *testing.T, language string) []Block {
	t.Helper()
	var blocks []Block
	pages := Pages(t)
	for _, file := range slices.Sorted(maps.Keys(pages)) {
		for i, text := range FencedBlocks(pages[file], language) {
			blocks = append(blocks, Block{fmt.Sprintf("%s, %s block %d", file, language, i+1), text})
		}
	}
	if len(blocks) < 2 {
		t.Fatalf("got %d blocks of %s, want at least 2", len(blocks), language)
	}
	return blocks
}
