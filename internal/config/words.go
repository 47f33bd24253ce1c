package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Parser reads blocks of words, and remembers the position of each setting.
type Parser struct {
	*caddyfile.Dispenser
	directive string              // for warnings
	positions map[string]position // by setting, as in Error
}

// NewParser returns a parser for the block that d has entered. setting is the block's name in
// errors. It is empty for the block of the directive itself.
func NewParser(d *caddyfile.Dispenser, directive, setting string) *Parser {
	return &Parser{Dispenser: d, directive: directive, positions: map[string]position{setting: here(d)}}
}

// Errf is like Caddy's Errf, but hides secrets in the values. It looks at each value before it
// is put into the text, so that the content of a value cannot hide where the value ends.
func (p *Parser) Errf(format string, args ...any) error {
	for i, arg := range args {
		if value, ok := arg.(string); ok {
			args[i] = Shown(value)
		}
	}
	return p.Dispenser.Errf(format, args...)
}

// ArgErr is like Caddy's ArgErr, which repeats the last argument, but hides secrets.
func (p *Parser) ArgErr() error { return WithoutSecrets(p.Dispenser.ArgErr(), nil) }

type position struct {
	file string
	line int
}

func here(d *caddyfile.Dispenser) position { return position{d.File(), d.Line()} }

// Note remembers the current position as the position of the setting.
func (p *Parser) Note(setting string) { p.positions[setting] = here(p.Dispenser) }

// positionOf returns the position of a setting, or of its block if the setting is missing.
func (p *Parser) positionOf(setting string) position {
	for {
		if at, ok := p.positions[setting]; ok {
			return at
		}
		cut := len(setting) - 1
		for cut > 0 && setting[cut] != '.' {
			cut--
		}
		setting = setting[:max(cut, 0)]
	}
}

// TryOut resolves the settings once, so that an error names the line: later the lines are
// unknown. If the setting contains a placeholder, another environment may provide a good value.
// In that case the problem is only a warning here, and it stops the start.
func (p *Parser) TryOut(resolve func(*caddy.Replacer) error) error {
	err := resolve(caddy.NewReplacer())
	if err == nil {
		return nil
	}
	bad, ok := errors.AsType[*Error](err)
	if !ok {
		return p.WrapErr(WithoutSecrets(err, nil))
	}
	at := p.positionOf(bad.setting)
	if bad.placeholder {
		caddy.Log().Named("config.adapter.caddyfile").Warn(
			fmt.Sprintf("%s:%d: %s: %v (with `caddy reload`, ignore this if the running Caddy has the value)", at.file, at.line, p.directive, bad))
		return nil
	}
	return fmt.Errorf("%w, at %s:%d", bad, at.file, at.line)
}

// Word describes how to read one word of a block.
type Word struct {
	// Once makes a second mention an error.
	Once bool
	// Parse reads the arguments. path is the setting's name with its block.
	Parse func(path string) error
}

// Words maps the words of a block to how they are read.
type Words map[string]Word

// Block reads a block of words. It reads nothing if there is no block.
func (p *Parser) Block(path string, known Words) error {
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		name := p.Val()
		w, ok := known[name]
		if !ok {
			return p.unknownWord(name, known)
		}
		full := name
		if path != "" {
			full = path + "." + name
		}
		if _, mentioned := p.positions[full]; mentioned && w.Once {
			return p.Errf("%s is set twice", name)
		}
		p.Note(full)
		if err := w.Parse(full); err != nil {
			return err
		}
	}
	return nil
}

// BlockOf makes a word that reads a block of options into a new T. The word has no arguments,
// and may be given only once.
func BlockOf[T any](p *Parser, target **T, words func(*T) Words) Word {
	return Word{Once: true, Parse: func(path string) error {
		*target = new(T)
		if p.NextArg() {
			return p.WrongArgs(path)
		}
		return p.Block(path, words(*target))
	}}
}

// WrongArgs returns the error for a word with too few or too many arguments.
func (p *Parser) WrongArgs(path string) error {
	return p.Errf("%s: wrong number of arguments", path)
}

// value reads exactly one argument, which must not be empty.
func (p *Parser) value(path string, target *string) error {
	if !p.AllArgs(target) {
		return p.WrongArgs(path)
	}
	if *target == "" {
		return p.Errf("%s is empty", path)
	}
	return nil
}

// Text reads one text.
func (p *Parser) Text(target *string) Word {
	return Word{Once: true, Parse: func(path string) error { return p.value(path, target) }}
}

// OptionalText reads one text, which is byDefault if the word has no argument.
func (p *Parser) OptionalText(target *string, byDefault string) Word {
	return Word{Once: true, Parse: func(path string) error {
		if p.CountRemainingArgs() == 0 {
			*target = byDefault
			return nil
		}
		return p.value(path, target)
	}}
}

// Colour reads hex digits. A # in front of them would start a comment in a Caddyfile.
func (p *Parser) Colour(target *string) Word {
	w := p.Text(target)
	return Word{Once: true, Parse: func(path string) error {
		if p.CountRemainingArgs() == 0 {
			return p.Errf("%s: colour missing: `#` starts a comment in a Caddyfile; write for example `accent 3a4cc9`", path)
		}
		return w.Parse(path)
	}}
}

// List reads one or more texts.
func (p *Parser) List(target *[]string) Word {
	return Word{Once: true, Parse: func(path string) error { return p.values(path, target) }}
}

// RepeatedList is like List, and the word may be repeated on another line to add more texts.
func (p *Parser) RepeatedList(target *[]string) Word {
	return Word{Parse: func(path string) error { return p.values(path, target) }}
}

func (p *Parser) values(path string, target *[]string) error {
	args := p.RemainingArgs()
	if len(args) == 0 {
		return p.WrongArgs(path)
	}
	if slices.Contains(args, "") {
		return p.Errf("%s is empty", path)
	}
	*target = append(*target, args...)
	return nil
}

// Bare reads a word without arguments, and sets target to true.
func (p *Parser) Bare(target *bool) Word {
	return Word{Once: true, Parse: func(path string) error {
		if p.NextArg() {
			return p.WrongArgs(path)
		}
		*target = true
		return nil
	}}
}

// OnOff reads `on` or `off`.
func (p *Parser) OnOff(target *bool) Word {
	return Word{Once: true, Parse: func(path string) error {
		if p.CountRemainingArgs() == 0 {
			return p.Errf("%s: write on or off behind it", path)
		}
		var text string
		if err := p.value(path, &text); err != nil {
			return err
		}
		switch text {
		case "on":
			*target = true
		case "off":
			*target = false
		default:
			return p.Errf("%s: '%s' is neither on nor off", path, text)
		}
		return nil
	}}
}

// OnOffDefault is like OnOff, for a setting that is on by default.
func (p *Parser) OnOffDefault(target **bool) Word {
	inner := new(bool)
	w := p.OnOff(inner)
	return Word{Once: true, Parse: func(path string) error {
		*target = inner
		return w.Parse(path)
	}}
}

// Number reads a whole number.
func (p *Parser) Number(target *int) Word {
	return Word{Once: true, Parse: func(path string) error {
		var text string
		if err := p.value(path, &text); err != nil {
			return err
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return p.Errf("%s: '%s' is not a whole number", path, text)
		}
		*target = n
		return nil
	}}
}

// Duration reads a duration greater than zero.
func (p *Parser) Duration(target *caddy.Duration) Word {
	return Word{Once: true, Parse: func(path string) error {
		var text string
		if err := p.value(path, &text); err != nil {
			return err
		}
		d, err := caddy.ParseDuration(text)
		if err != nil {
			return p.Errf("%s: '%s' is not a duration such as 90s, 5m or 30d", path, text)
		}
		if d <= 0 {
			return p.Errf("%s: '%s' must be more than zero", path, text)
		}
		*target = caddy.Duration(d)
		return nil
	}}
}

// DurationOrOff is like Duration, and also accepts `off`.
func (p *Parser) DurationOrOff(target *caddy.Duration) Word {
	w := p.Duration(target)
	return Word{Once: true, Parse: func(path string) error {
		if p.CountRemainingArgs() == 1 {
			if p.NextArg(); p.Val() == "off" {
				*target = 0
				return nil
			}
			p.Prev()
		}
		return w.Parse(path)
	}}
}

// Pair reads a name and a value. The word may be repeated with another name.
func (p *Parser) Pair(target *map[string]string) Word {
	return Word{Parse: func(path string) error {
		var name, value string
		if !p.AllArgs(&name, &value) {
			return p.WrongArgs(path)
		}
		return p.put(path, target, name, value)
	}}
}

// PairsOrOff is like Pair, and also accepts `off`, which sets an empty map. nil means the default.
func (p *Parser) PairsOrOff(target *map[string]string) Word {
	w := p.Pair(target)
	return Word{Parse: func(path string) error {
		isOff := *target != nil && len(*target) == 0
		switch {
		case p.CountRemainingArgs() != 1:
			if isOff {
				return p.Errf("%s: contradicts off", path)
			}
			return w.Parse(path)
		case *target != nil:
			return p.Errf("%s: off contradicts another mention", path)
		}
		if p.NextArg(); p.Val() != "off" {
			return p.WrongArgs(path)
		}
		*target = map[string]string{}
		return nil
	}}
}

// Table reads a block of names and values. Each name must be one of names.
func (p *Parser) Table(target *map[string]string, names []string) Word {
	return Word{Once: true, Parse: func(path string) error {
		if p.NextArg() {
			return p.WrongArgs(path)
		}
		known := Words{}
		for _, name := range names {
			known[name] = Word{Once: true, Parse: func(entry string) error {
				var value string
				if err := p.value(entry, &value); err != nil {
					return err
				}
				return p.put(path, target, name, value)
			}}
		}
		return p.Block(path, known)
	}}
}

func (p *Parser) put(path string, target *map[string]string, name, value string) error {
	if *target == nil {
		*target = make(map[string]string)
	}
	if _, taken := (*target)[name]; taken {
		return p.Errf("%s: %s is set twice", path, name)
	}
	(*target)[name] = value
	return nil
}

// DidYouMean returns "; did you mean …?" with the known word that is most similar to the
// written one, or with the only known word that begins with it. It returns an empty text if
// there is none.
func DidYouMean(written string, known []string) string {
	best, bestDistance := "", max(2, len(written)/3)+1
	for _, candidate := range known {
		if d := editDistance(foldWord(written), foldWord(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	if best == "" {
		best = onlyBeginning(written, known)
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean '%s'?", best)
}

// foldWord makes words equal that differ only in case or in hyphens.
func foldWord(word string) string { return strings.ReplaceAll(strings.ToLower(word), "-", "_") }

// onlyBeginning returns the known word that begins with the written one, if there is exactly
// one.
func onlyBeginning(written string, known []string) string {
	const minBeginning = 3
	only := ""
	for _, candidate := range known {
		if len(written) < minBeginning || !strings.HasPrefix(candidate, written) {
			continue
		}
		if only != "" {
			return ""
		}
		only = candidate
	}
	return only
}

// editDistance counts the letters to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
