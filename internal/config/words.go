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

// NewParser reads the block that d has entered. setting is the name under which errors
// know the block, and empty for the directive's own.
func NewParser(d *caddyfile.Dispenser, directive, setting string) *Parser {
	return &Parser{Dispenser: d, directive: directive, positions: map[string]position{setting: here(d)}}
}

// Errf is Caddy's, without the secrets among the values. It knows the values, so that
// nothing in them can hide their ends.
func (p *Parser) Errf(format string, args ...any) error {
	for i, arg := range args {
		if value, ok := arg.(string); ok {
			args[i] = Shown(value)
		}
	}
	return p.Dispenser.Errf(format, args...)
}

// ArgErr is Caddy's, which repeats the last argument.
func (p *Parser) ArgErr() error { return WithoutSecrets(p.Dispenser.ArgErr(), nil) }

type position struct {
	file string
	line int
}

func here(d *caddyfile.Dispenser) position { return position{d.File(), d.Line()} }

// Note remembers that the setting stands here.
func (p *Parser) Note(setting string) { p.positions[setting] = here(p.Dispenser) }

// positionOf is where a setting stands, or else the block that it is missing from.
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

// TryOut resolves what was read once, so that a setting that cannot be
// used is reported with its line, which nobody knows any more later on. Where a
// placeholder had its part in it, another environment may fill it in: that is a
// warning here, and stops the start.
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
			fmt.Sprintf("%s:%d: %s: %v", at.file, at.line, p.directive, bad))
		return nil
	}
	return fmt.Errorf("%w, at %s:%d", bad, at.file, at.line)
}

// Word reads what follows one word of a block.
type Word struct {
	// Once: a second mention is an error.
	Once bool
	// Parse reads the arguments. The path is the setting's name, with its block.
	Parse func(path string) error
}

type Words map[string]Word

// Block reads a block of words, or nothing where there is no block.
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
			return p.Errf("%s stands twice", name)
		}
		p.Note(full)
		if err := w.Parse(full); err != nil {
			return err
		}
	}
	return nil
}

// WrongArgs is the error of a word with too few or too many arguments.
func (p *Parser) WrongArgs(path string) error {
	return p.Errf("%s: wrong number of arguments", path)
}

// value reads exactly one argument, which may not be empty.
func (p *Parser) value(path string, target *string) error {
	if !p.AllArgs(target) {
		return p.WrongArgs(path)
	}
	if *target == "" {
		return p.Errf("%s is empty", path)
	}
	return nil
}

func (p *Parser) Text(target *string) Word {
	return Word{Once: true, Parse: func(path string) error { return p.value(path, target) }}
}

// OptionalText is a text that has a default where the word stands alone.
func (p *Parser) OptionalText(target *string, byDefault string) Word {
	return Word{Once: true, Parse: func(path string) error {
		if p.CountRemainingArgs() == 0 {
			*target = byDefault
			return nil
		}
		return p.value(path, target)
	}}
}

func (p *Parser) List(target *[]string) Word {
	return Word{Once: true, Parse: func(path string) error { return p.values(path, target) }}
}

// RepeatedList is a list that may be continued by the same word on another line.
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

func (p *Parser) Bare(target *bool) Word {
	return Word{Once: true, Parse: func(path string) error {
		if p.NextArg() {
			return p.WrongArgs(path)
		}
		*target = true
		return nil
	}}
}

func (p *Parser) OnOff(target *bool) Word {
	return Word{Once: true, Parse: func(path string) error {
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

// OnOffDefault is for a setting that is on unless it is turned off.
func (p *Parser) OnOffDefault(target **bool) Word {
	inner := new(bool)
	w := p.OnOff(inner)
	return Word{Once: true, Parse: func(path string) error {
		*target = inner
		return w.Parse(path)
	}}
}

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

// Pair reads a name and a value, and may stand again with another name.
func (p *Parser) Pair(target *map[string]string) Word {
	return Word{Parse: func(path string) error {
		var name, value string
		if !p.AllArgs(&name, &value) {
			return p.WrongArgs(path)
		}
		return p.put(path, target, name, value)
	}}
}

// PairsOrOff is pair with the word `off` for no pair at all, which is not the default.
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

// Table reads a block of names and values, of which the names are known.
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
		return p.Errf("%s: %s stands twice", path, name)
	}
	(*target)[name] = value
	return nil
}

// DidYouMean names the known word that is nearest to what was written, if any is
// near, or the only one that begins with it.
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

// foldWord makes words equal that differ in upper case or in hyphens.
func foldWord(word string) string { return strings.ReplaceAll(strings.ToLower(word), "-", "_") }

// onlyBeginning gives the known word of which the written one is the beginning, if there is
// exactly one.
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
