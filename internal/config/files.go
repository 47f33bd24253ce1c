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

// namedPipeIn returns the first file that the placeholders of a text name and that is a named
// pipe, or "". Reading a pipe ends only if another process writes to it, so Caddy would wait for
// that at each start and reload.
func namedPipeIn(raw string) string {
	if !strings.Contains(raw, "{"+filePlaceholder) {
		return ""
	}
	for _, name := range FilesIn(raw) {
		if info, err := os.Stat(name); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			return name
		}
	}
	return ""
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
