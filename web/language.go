package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"strings"
)

//go:embed lang/*.json
var languageFiles embed.FS

// language is the human text of every page in one language: the file
// lang/<tag>.json, key to text. Text holds placeholders such as {brand}.
type language struct {
	tag  string
	text map[string]string
}

var english = mustLoadLanguage("en")

// mustLoadLanguage panics on a broken file: the bytes are part of the program,
// so no input and no configuration can bring that about.
func mustLoadLanguage(tag string) *language {
	raw, err := languageFiles.ReadFile("lang/" + tag + ".json")
	if err != nil {
		panic(fmt.Sprintf("reading language %s: %v", tag, err))
	}
	l := &language{tag: tag}
	if err := json.Unmarshal(raw, &l.text); err != nil {
		panic(fmt.Sprintf("parsing language %s: %v", tag, err))
	}
	return l
}

// fill returns the text of key with its placeholders replaced. pairs are
// alternating names and values. It is one pass over the text, so a value that
// looks like a placeholder stays as it is. The result is plain text: only
// html/template turns it into HTML.
func (l *language) fill(key string, pairs ...string) (string, error) {
	text, ok := l.text[key]
	if !ok {
		return "", fmt.Errorf("language %s has no text %q", l.tag, key)
	}
	oldnew := make([]string, len(pairs))
	for i, s := range pairs {
		if i%2 == 0 {
			s = "{" + s + "}"
		}
		oldnew[i] = s
	}
	return strings.NewReplacer(oldnew...).Replace(text), nil
}
