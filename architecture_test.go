package tollgate

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// caddyFree files take values and return values and errors: they know nothing of
// Caddy, and they do not log.
var caddyFree = []string{
	"tokens.go", "tokenanswer.go", "renewal.go", "session.go", "sealing.go", "secret.go", "cookies.go", "login.go",
	"record.go", "ticket.go", "store_ticket.go", "renewal_fleet.go", "opened.go",
	"streams.go", "websocket.go",
	"userinfo.go", "balance.go", "require.go", "rule_gaps.go", "rules.go", "returnpath.go", "identity.go", "navigation.go", "forwarded.go", "target.go", "steering.go",
}

func TestImportsKeepTheirDirection(t *testing.T) {
	for _, file := range caddyFree {
		for _, path := range importsOf(t, file) {
			if strings.Contains(path, "caddyserver") || strings.Contains(path, "zap") || path == "log" || path == "log/slog" {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
	for _, folder := range []string{"simulator", "web", "demo"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", folder, err)
		}
		for _, file := range files {
			for _, path := range importsOf(t, file) {
				isTest := strings.HasSuffix(file, "_test.go")
				allowed := folder == "web" && strings.HasPrefix(path, "golang.org/x/")
				if path == "github.com/caddy-tollgate/tollgate" || (!isTest && strings.Contains(path, ".") && !allowed) {
					t.Errorf("%s imports %s", file, path)
				}
			}
		}
	}
}

func TestOnlyTheRedisStoreSpeaksToRedis(t *testing.T) {
	files, _ := filepath.Glob("*.go")
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "redis_client.go" || file == "redis_records.go" {
			continue
		}
		for _, path := range importsOf(t, file) {
			if strings.Contains(path, "rueidis") {
				t.Errorf("%s imports %s", file, path)
			}
		}
	}
}

func TestRandomnessComesFromTheSystemOnly(t *testing.T) {
	files, _ := filepath.Glob("*.go")
	for _, file := range files {
		if slices.Contains(importsOf(t, file), "math/rand") || slices.Contains(importsOf(t, file), "math/rand/v2") {
			t.Errorf("%s imports math/rand", file)
		}
	}
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range parsed.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, path)
	}
	return paths
}

var quotedTest = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")

// TestSECURITYNamesTestsThatExist keeps the threat model from drifting.
func TestSECURITYNamesTestsThatExist(t *testing.T) {
	var code strings.Builder
	for _, folder := range []string{".", "web", "e2e"} {
		files, _ := filepath.Glob(filepath.Join(folder, "*_test.go"))
		for _, file := range files {
			code.WriteString(readFile(t, file))
		}
	}
	names := quotedTest.FindAllStringSubmatch(readFile(t, "SECURITY.md"), -1)
	if len(names) < 30 {
		t.Fatalf("found %d names", len(names))
	}
	for _, name := range names {
		if !strings.Contains(code.String(), "func "+name[1]+"(") {
			t.Errorf("there is no %s", name[1])
		}
	}
}
