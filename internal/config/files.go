package config

import (
	"io"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// filePlaceholder is the beginning of the placeholder for a file's content.
const filePlaceholder = "file."

// maxFile is how much of a file is read, as by Caddy.
const maxFile = 1 << 20

// FilesIn returns the files that the placeholders of a text name, each once.
func FilesIn(raw ...string) []string {
	var files []string
	known := make(map[string]bool)
	repl := caddy.NewReplacer().WithoutFile()
	repl.Map(func(key string) (any, bool) {
		name, isFile := strings.CutPrefix(key, filePlaceholder)
		if isFile && !known[name] {
			known[name] = true
			files = append(files, name)
		}
		return "", isFile
	})
	for _, text := range raw {
		_ = repl.ReplaceAll(text, "")
	}
	return files
}

// NewRereader returns a Resolver for settings that are read again while the gateway runs. It
// reads files as Caddy does, and writes no log line about a file that cannot be read: the
// error of the Resolver says it.
func NewRereader() *Resolver {
	repl := caddy.NewReplacer().WithoutFile()
	repl.Map(func(key string) (any, bool) {
		name, isFile := strings.CutPrefix(key, filePlaceholder)
		if !isFile {
			return nil, false
		}
		text, err := readFile(name)
		if err != nil {
			return nil, true
		}
		return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), true
	})
	return &Resolver{Repl: repl}
}

func readFile(name string) (string, error) {
	f, err := os.Open(name) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(text), err
}
