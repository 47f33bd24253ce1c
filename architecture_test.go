package tollgate_test

import (
	"encoding/json"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

const modulePath = "github.com/caddy-tollgate/tollgate"

// floors are the packages of the house from the ground up. A package may import only
// packages of floors below its own.
var floors = [][]string{
	{"internal/cause", "internal/clock", "internal/decimal", "internal/flight", "internal/header", "internal/origin", "internal/rare", "internal/recent", "internal/secretfiles", "internal/tracing", "internal/wire"},
	{"internal/adminapi", "internal/config", "internal/keys", "internal/metrics", "internal/oauth", "internal/respond", "internal/spending"},
	{"internal/session"},
	{"internal/account", "internal/browser", "internal/records"},
	{"internal/identity", "internal/policy", "internal/relay", "internal/renewal"},
	{"internal/admin", "internal/audit", "internal/charging", "internal/errorroutes", "internal/neighbours", "internal/placeholders", "internal/starting", "internal/watch", "stores/cookie", "stores/redis", "stores/storage"},
	{"internal/doctor", "internal/explain", "internal/resolve"},
	{"internal/command"},
	{""},
}

// withoutCaddy are the packages that know neither Caddy nor a logger nor OpenTelemetry: they take values,
// and return values and errors.
var withoutCaddy = []string{
	"internal/account", "internal/adminapi", "internal/browser", "internal/cause", "internal/decimal", "internal/explain", "internal/flight", "internal/header",
	"internal/identity", "internal/keys", "internal/metrics", "internal/oauth", "internal/origin", "internal/policy", "internal/records",
	"internal/rare", "internal/recent", "internal/renewal", "internal/respond", "internal/secretfiles", "internal/session", "internal/spending", "internal/wire",
}

// goPackage is what `go list` says of a package.
type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func listPackages(t *testing.T, patterns ...string) []goPackage {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, patterns...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		switch err := decoder.Decode(&p); {
		case err == io.EOF:
			return packages
		case err != nil:
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// within gives the path of a package inside the module. ok is false for other modules.
func within(path string) (inside string, ok bool) {
	if path == modulePath {
		return "", true
	}
	return strings.CutPrefix(path, modulePath+"/")
}

func TestPackagesImportDownwardsOnly(t *testing.T) {
	floorOf := map[string]int{}
	for i, floor := range floors {
		for _, p := range floor {
			floorOf[p] = i
		}
		t.Logf("floor %d: %s", i, strings.Join(floor, " "))
	}
	for _, p := range listPackages(t, ".", "./internal/...", "./stores/...") {
		name, _ := within(p.ImportPath)
		floor, known := floorOf[name]
		if strings.HasSuffix(name, "test") {
			continue // helps tests, and may import what it tests
		}
		if !known {
			t.Errorf("%s stands on no floor: add it to floors", name)
		}
		for _, imported := range p.Imports {
			below, ours := within(imported)
			if ours && strings.HasSuffix(below, "test") {
				t.Errorf("%s imports %s, which is for tests", name, below)
			}
			if other, known := floorOf[below]; ours && known && other >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d)", name, floor, below, other)
			}
		}
	}
}

func TestPackagesThatDecideKnowNoCaddy(t *testing.T) {
	for _, name := range withoutCaddy {
		for _, p := range listPackages(t, "./"+name) {
			for _, dependency := range p.Deps {
				if strings.HasPrefix(dependency, "github.com/caddyserver/") || strings.HasPrefix(dependency, "go.uber.org/zap") || strings.HasPrefix(dependency, "go.opentelemetry.io/") || dependency == "log/slog" && slices.Contains(p.Imports, dependency) {
					t.Errorf("%s depends on %s", name, dependency)
				}
			}
		}
	}
}

func TestSimulatorAndPagesShareNoCodeWithTheGateway(t *testing.T) {
	for _, p := range listPackages(t, "./simulator", "./web", "./demo") {
		for _, dependency := range p.Deps {
			if inside, ours := within(dependency); ours && inside != "internal/cause" && inside != "simulator" && inside != "web" && inside != "demo" {
				t.Errorf("%s depends on %s", p.ImportPath, dependency)
			}
		}
	}
}

func TestOnlyTheRedisStoreSpeaksToRedis(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		speaks := slices.ContainsFunc(p.Imports, func(path string) bool { return strings.Contains(path, "rueidis") })
		if name, _ := within(p.ImportPath); speaks != (name == "stores/redis" || name == "internal/redistest") {
			t.Errorf("%s imports rueidis: %v", p.ImportPath, speaks)
		}
	}
}

func TestRandomnessComesFromTheSystemOnly(t *testing.T) {
	for _, p := range listPackages(t, ".", "./internal/...", "./stores/...") {
		if slices.Contains(p.Imports, "math/rand") || slices.Contains(p.Imports, "math/rand/v2") {
			t.Errorf("%s imports math/rand", p.ImportPath)
		}
	}
}

var (
	directRequirement = regexp.MustCompile(`(?m)^\t(\S+?)(?:/v[0-9]+)? v\S+$`)
	dependencyRow     = regexp.MustCompile(`(?m)^\| ([^|]+) \| [^|]+ \|$`)
)

// TestArchitectureListsTheDependencies compares go.mod with the tables of docs/architecture.md.
func TestArchitectureListsTheDependencies(t *testing.T) {
	var want, got []string
	for _, m := range directRequirement.FindAllStringSubmatch(manualtest.ReadFile(t, "go.mod"), -1) {
		want = append(want, strings.TrimPrefix(m[1], "github.com/"))
	}
	_, section, _ := strings.Cut(manualtest.ReadFile(t, "docs/architecture.md"), "## Dependencies")
	for _, row := range dependencyRow.FindAllStringSubmatch(section, -1) {
		if row[1] != "dependency" {
			got = append(got, strings.Split(row[1], ", ")...)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
		t.Errorf("the tables differ from the direct requirements of go.mod (-go.mod +docs):\n%s", diff)
	}
}

var quotedTest = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")

// TestSECURITYNamesTestsThatExist keeps the threat model from drifting.
func TestSECURITYNamesTestsThatExist(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir(".", func(file string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(file, "_test.go") {
			code.WriteString(manualtest.ReadFile(t, file))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := quotedTest.FindAllStringSubmatch(manualtest.ReadFile(t, "SECURITY.md"), -1)
	if len(names) < 30 {
		t.Fatalf("found %d names", len(names))
	}
	for _, name := range names {
		if !strings.Contains(code.String(), "func "+name[1]+"(") {
			t.Errorf("there is no %s", name[1])
		}
	}
}
