package tollgate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// optionRow is one option as its field comment describes it.
type optionRow struct{ word, text string }

// optionRows reads the documented configuration fields, block by block.
func optionRows(t *testing.T) []optionRow {
	t.Helper()
	structs := map[string]*ast.StructType{}
	for _, file := range []string{"module.go", "options.go", "stores/storage/storage.go", "stores/redis/redis.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					structs[parsed.Name.Name+"."+spec.Name.Name] = s
				}
			}
			return true
		})
	}
	var rows []optionRow
	var walk func(structName, path string)
	walk = func(structName, path string) {
		for _, field := range structs[structName].Fields.List {
			if field.Tag == nil {
				continue
			}
			name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ",")
			text := strings.Join(strings.Fields(field.Doc.Text()), " ")
			if text == "" {
				t.Errorf("%s.%s has no comment", structName, name)
			}
			rows = append(rows, optionRow{path + name, text})
			if path+name == "session › store" {
				walk("storage.Store", "session › store storage › ")
				walk("redis.Store", "session › store redis › ")
			}
			inList := field.Type
			if list, ok := inList.(*ast.ArrayType); ok {
				inList = list.Elt
			}
			if pointer, ok := inList.(*ast.StarExpr); ok {
				packageName, _, _ := strings.Cut(structName, ".")
				if inner, ok := pointer.X.(*ast.Ident); ok && structs[packageName+"."+inner.Name] != nil {
					walk(packageName+"."+inner.Name, path+name+" › ")
				}
			}
		}
	}
	walk("tollgate.Handler", "")
	return rows
}

const (
	optionsBegin = "<!-- options: written by `make docs` -->\n"
	optionsEnd   = "<!-- end of options -->\n"
)

// optionsPage is the page of the manual that holds the table.
const optionsPage = "docs/options.md"

// TestOptionsTableMatchesTheCode compares the table with the field comments, which are
// the manual. With TOLLGATE_UPDATE_DOCS it writes the table.
func TestOptionsTableMatchesTheCode(t *testing.T) {
	var table strings.Builder
	table.WriteString("| word | meaning |\n|---|---|\n")
	for _, row := range optionRows(t) {
		table.WriteString("| `" + row.word + "` | " + strings.ReplaceAll(row.text, "|", "\\|") + " |\n")
	}
	page := manualtest.ReadFile(t, optionsPage)
	before, rest, ok := strings.Cut(page, optionsBegin)
	_, after, ok2 := strings.Cut(rest, optionsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", optionsPage)
	}
	want := before + optionsBegin + table.String() + optionsEnd + after
	if page == want {
		return
	}
	if os.Getenv("TOLLGATE_UPDATE_DOCS") == "" {
		t.Fatalf("the table in %s differs from the field comments: run `make docs`", optionsPage)
	}
	if err := os.WriteFile(optionsPage, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestEveryOptionHasAWordInTheCaddyfile expects the JSON key as the word. The options in without
// need no word: the syntax says which they are, as in `require <path>`.
func TestEveryOptionHasAWordInTheCaddyfile(t *testing.T) {
	without := map[string]bool{"match": true, "provider › preset": true, "identity › presets": true, "require › paths": true, "require › budget › amount": true, "require › budget › per": true}
	for _, row := range optionRows(t) {
		parts := strings.Split(row.word, " › ")
		word := parts[len(parts)-1]
		tested := strings.ReplaceAll("\n"+full+"\n"+fullRedis+"\n"+fromCookies+"\n"+fullSpending+"\ninsecure_http \ncluster \n", "\t", "")
		if !without[row.word] && !strings.Contains(tested, "\n"+word+" ") {
			t.Errorf("%s is in no test of the Caddyfile", row.word)
		}
	}
}
