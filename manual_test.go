package tollgate_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/internal/command"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// maxReadmeLines keeps the README an overview; the rest belongs into docs.
const maxReadmeLines = 200

func TestReadmeIsShort(t *testing.T) {
	if lines := strings.Count(manualtest.ReadFile(t, "README.md"), "\n"); lines > maxReadmeLines {
		t.Errorf("README.md has %d lines, want at most %d: move text into docs", lines, maxReadmeLines)
	}
}

func TestManualBlocksAreValid(t *testing.T) {
	manualtest.SetEnv(t)
	for _, block := range manualtest.Blocks(t, "caddyfile") {
		if _, err := gatewaytest.Adapt(block.Text); err != nil {
			t.Errorf("%s: %v", block.Where, err)
		}
	}
	for _, block := range manualtest.Blocks(t, "json") {
		if !json.Valid([]byte(block.Text)) {
			t.Errorf("%s is not JSON:\n%s", block.Where, block.Text)
		}
	}
}

// ourCommand finds the arguments of our commands, over lines that end in a backslash.
var ourCommand = regexp.MustCompile("caddy tollgate ((?:[^`\n\\\\]|\\\\\n)+)")

func TestManualCommandsExist(t *testing.T) {
	found := 0
	for file, text := range manualtest.Pages(t) {
		for _, match := range ourCommand.FindAllStringSubmatch(text, -1) {
			found++
			if err := checkCommand(strings.Fields(strings.ReplaceAll(match[1], "\\\n", " "))); err != nil {
				t.Errorf("%s: caddy tollgate %s: %v", file, match[1], err)
			}
		}
	}
	if found < 10 {
		t.Errorf("found %d commands, want at least 10", found)
	}
}

// checkCommand reports an error if the words name no command, or a flag that the
// command does not have. It looks up to the first comment or redirection.
func checkCommand(words []string) error {
	subcommand := &cobra.Command{Use: "tollgate"}
	command.AddCommands(subcommand)
	if words[0] == "…" { // stands for every command
		return nil
	}
	for _, word := range words {
		if word == "#" || word == ">" {
			break
		}
		if subcommand.HasSubCommands() {
			sub, _, err := subcommand.Find([]string{word})
			if err != nil || sub == subcommand {
				return fmt.Errorf("%s has no command %q", subcommand.Name(), word)
			}
			subcommand = sub
			continue
		}
		subcommand.InitDefaultHelpFlag()
		if flag, ok := strings.CutPrefix(word, "--"); ok && subcommand.Flags().Lookup(flag) == nil {
			return fmt.Errorf("%s has no flag --%s", subcommand.Name(), flag)
		}
	}
	return nil
}

// link finds the targets of Markdown links and of pictures.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"`)

// TestDocsLinksResolve follows the links within the repository, anchors included.
func TestDocsLinksResolve(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/README.md", "bench/README.md"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, matches...)
	}
	links := 0
	for _, file := range files {
		for _, match := range link.FindAllStringSubmatch(manualtest.WithoutBlocks(manualtest.ReadFile(t, file)), -1) {
			target, err := url.Parse(match[1] + match[2])
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if target.Scheme != "" || strings.HasPrefix(target.Path, "/") {
				continue
			}
			links++
			checkLink(t, file, target)
		}
	}
	if links < 50 {
		t.Errorf("found %d links within the repository, want at least 50", links)
	}
}

func checkLink(t *testing.T, from string, target *url.URL) {
	t.Helper()
	file := from
	if target.Path != "" {
		file = filepath.Join(filepath.Dir(from), filepath.FromSlash(target.Path))
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("%s links to %s: %v", from, target, err)
		return
	}
	if target.Fragment == "" {
		return
	}
	for line := range strings.Lines(manualtest.WithoutBlocks(manualtest.ReadFile(t, file))) {
		if title := strings.TrimLeft(line, "#"); title != line && anchorOf(title) == target.Fragment {
			return
		}
	}
	t.Errorf("%s links to %s, and %s has no such heading", from, target, file)
}

// anchorOf gives the name under which GitHub links to a heading: lower case, blanks as
// hyphens, no punctuation.
func anchorOf(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, strings.TrimSpace(title))
}
