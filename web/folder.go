package web

import (
	"fmt"
	"html/template"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

const (
	layoutFile = "layout.html"
	styleName  = "style.css"
)

func (p Page) file() string { return string(p) + ".html" }

// UnknownFileError is the error of a file in the operator's folder that does not have the
// name of one of our files. Such a file would have no effect.
type UnknownFileError struct {
	Name  string
	Known []string
}

// Error implements error.
func (e *UnknownFileError) Error() string {
	return fmt.Sprintf("%s is not the name of a page; the names are %s", e.Name, strings.Join(e.Known, ", "))
}

// ownFiles are the files of the operator's folder, by name. Each replaces our file with
// the same name.
type ownFiles map[string]string

// readFolder reads the operator's folder. If there is none, it returns no files.
func readFolder(folder fs.FS) (ownFiles, error) {
	own := ownFiles{}
	if folder == nil {
		return own, nil
	}
	known := []string{layoutFile, styleName}
	for _, page := range allPages {
		known = append(known, page.file())
	}
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue // a file of an editor or a file manager
		}
		if !slices.Contains(known, name) {
			return nil, &UnknownFileError{Name: name, Known: known}
		}
		raw, err := fs.ReadFile(folder, name)
		if err != nil {
			return nil, err
		}
		own[name] = inline(string(raw))
	}
	return own, nil
}

// style is the style sheet of all pages.
func (own ownFiles) style() (string, error) {
	style, ok := own[styleName]
	if !ok {
		return inline(styleFile), nil
	}
	if i := strings.Index(strings.ToLower(style), "</style"); i >= 0 {
		return "", fmt.Errorf("%s:%d: </style would end the style sheet", styleName, lineAt(style, i))
	}
	return style, nil
}

// templates returns the templates of all pages.
func (own ownFiles) templates() (map[Page]*template.Template, error) {
	if len(own) == 0 {
		return ourTemplates()
	}
	return own.parseAll()
}

// ourTemplates are the templates of sites without a folder. They are parsed once, because all
// these sites have the same.
var ourTemplates = sync.OnceValues(ownFiles{}.parseAll)

func (own ownFiles) parseAll() (map[Page]*template.Template, error) {
	templates := map[Page]*template.Template{}
	for _, page := range allPages {
		t, err := own.parse(page)
		if err != nil {
			return nil, err
		}
		templates[page] = t
	}
	return templates, nil
}

// parse reads the templates of a page: the layout, our parts, and the page itself.
func (own ownFiles) parse(page Page) (*template.Template, error) {
	t := template.New("")
	for _, name := range []string{layoutFile, "parts.html", page.file()} {
		source, ok := own[name]
		if !ok {
			raw, err := templateFiles.ReadFile("templates/" + name)
			if err != nil {
				return nil, err
			}
			source = string(raw)
		}
		if _, err := t.New(name).Parse(source); err != nil {
			return nil, err
		}
	}
	if t.Lookup("main") == nil {
		return nil, fmt.Errorf(`%s: defines no "main", which the layout shows`, page.file())
	}
	return t, nil
}

// lineAt returns the number of the line with the byte at i.
func lineAt(source string, i int) int { return strings.Count(source[:i], "\n") + 1 }
