package tollgate_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// TestManualProgramsParse asks each language whether it can read the manual's programs.
// A fragment of a configuration file is a program, too.
func TestManualProgramsParse(t *testing.T) {
	for _, language := range []struct {
		name, file string
		check      []string
	}{
		{"php", "program.php", []string{"php", "-l"}},
		{"js", "program.mjs", []string{"node", "--check"}},
		{"python", "program.py", []string{"python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"}},
	} {
		for _, block := range manualtest.Blocks(t, language.name) {
			file := filepath.Join(t.TempDir(), language.file)
			if err := os.WriteFile(file, []byte(block.Text), 0o600); err != nil {
				t.Fatal(err)
			}
			command := exec.Command(language.check[0], append(language.check[1:], file)...)
			if output, err := command.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", block.Where, err, output)
			}
		}
	}
}

var (
	codeSpan = regexp.MustCompile("`([a-z_]+)[^`]*`")
	// caddysOwn are the words of Caddy that the page names beside ours.
	caddysOwn = map[string]bool{
		"basic_auth": true, "caddy": true, "client_ip_headers": true, "file_server": true, "header_up": true, "log": true,
		"metrics": true, "php_fastcgi": true, "reverse_proxy": true, "tollgate": true,
	}
)

// TestMigratingNamesOptionsThatExist reads the second column of the tables by which people
// translate their configuration.
func TestMigratingNamesOptionsThatExist(t *testing.T) {
	options := manualtest.ReadFile(t, "docs/options.md")
	found := 0
	for line := range strings.Lines(manualtest.ReadFile(t, "docs/migrating.md")) {
		cells := strings.Split(line, " | ")
		if len(cells) != 2 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, span := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
			word := span[1]
			if caddysOwn[word] {
				continue
			}
			found++
			if !strings.Contains(options, " "+word+"` |") && !strings.Contains(options, "| `"+word+"` |") {
				t.Errorf("docs/migrating.md names %q, which is no option:\n%s", word, line)
			}
		}
	}
	if found < 40 {
		t.Errorf("found %d options, want at least 40", found)
	}
}
