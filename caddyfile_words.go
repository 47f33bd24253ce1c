package tollgate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// blockParser reads blocks of words, and remembers the position of each setting.
type blockParser struct {
	*caddyfile.Dispenser
	directive string              // for warnings
	positions map[string]position // by setting, as in settingError
}

// newBlockParser reads the block that d has entered. setting is the name under which errors
// know the block, and empty for the directive's own.
func newBlockParser(d *caddyfile.Dispenser, directive, setting string) *blockParser {
	return &blockParser{Dispenser: d, directive: directive, positions: map[string]position{setting: here(d)}}
}

// Errf is Caddy's, without the secrets among the values. It knows the values, so that
// nothing in them can hide their ends.
func (p *blockParser) Errf(format string, args ...any) error {
	for i, arg := range args {
		if value, ok := arg.(string); ok {
			args[i] = shown(value)
		}
	}
	return p.Dispenser.Errf(format, args...)
}

// ArgErr is Caddy's, which repeats the last argument.
func (p *blockParser) ArgErr() error { return withoutSecrets(p.Dispenser.ArgErr(), nil) }

type position struct {
	file string
	line int
}

func here(d *caddyfile.Dispenser) position { return position{d.File(), d.Line()} }

// note remembers that the setting stands here.
func (p *blockParser) note(setting string) { p.positions[setting] = here(p.Dispenser) }

// positionOf is where a setting stands, or else the block that it is missing from.
func (p *blockParser) positionOf(setting string) position {
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

// tryOut resolves what was read once, so that a setting that cannot be
// used is reported with its line, which nobody knows any more later on. Where a
// placeholder had its part in it, another environment may fill it in: that is a
// warning here, and stops the start.
func (p *blockParser) tryOut(resolve func(*caddy.Replacer) error) error {
	err := resolve(caddy.NewReplacer())
	if err == nil {
		return nil
	}
	bad, ok := errors.AsType[*settingError](err)
	if !ok {
		return p.WrapErr(withoutSecrets(err, nil))
	}
	at := p.positionOf(bad.setting)
	if bad.placeholder {
		caddy.Log().Named("config.adapter.caddyfile").Warn(
			fmt.Sprintf("%s:%d: %s: %v", at.file, at.line, p.directive, bad))
		return nil
	}
	return fmt.Errorf("%w, at %s:%d", bad, at.file, at.line)
}

// word reads what follows one word of a block.
type word struct {
	// once: a second mention is an error.
	once bool
	// parse reads the arguments. The path is the setting's name, with its block.
	parse func(path string) error
}

type words map[string]word

// block reads a block of words, or nothing where there is no block.
func (p *blockParser) block(path string, known words) error {
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		name := p.Val()
		w, ok := known[name]
		if !ok {
			return p.Errf("unknown word '%s'%s", name, didYouMean(name, slices.Sorted(maps.Keys(known))))
		}
		full := name
		if path != "" {
			full = path + "." + name
		}
		if _, mentioned := p.positions[full]; mentioned && w.once {
			return p.Errf("%s stands twice", name)
		}
		p.note(full)
		if err := w.parse(full); err != nil {
			return err
		}
	}
	return nil
}

// wrongArgs is the error of a word with too few or too many arguments.
func (p *blockParser) wrongArgs(path string) error {
	return p.Errf("%s: wrong number of arguments", path)
}

// value reads exactly one argument, which may not be empty.
func (p *blockParser) value(path string, target *string) error {
	if !p.AllArgs(target) {
		return p.wrongArgs(path)
	}
	if *target == "" {
		return p.Errf("%s is empty", path)
	}
	return nil
}

func (p *blockParser) text(target *string) word {
	return word{once: true, parse: func(path string) error { return p.value(path, target) }}
}

// optionalText is a text that has a default where the word stands alone.
func (p *blockParser) optionalText(target *string, byDefault string) word {
	return word{once: true, parse: func(path string) error {
		if p.CountRemainingArgs() == 0 {
			*target = byDefault
			return nil
		}
		return p.value(path, target)
	}}
}

func (p *blockParser) list(target *[]string) word {
	return word{once: true, parse: func(path string) error { return p.values(path, target) }}
}

// repeatedList is a list that may be continued by the same word on another line.
func (p *blockParser) repeatedList(target *[]string) word {
	return word{parse: func(path string) error { return p.values(path, target) }}
}

func (p *blockParser) values(path string, target *[]string) error {
	args := p.RemainingArgs()
	if len(args) == 0 {
		return p.wrongArgs(path)
	}
	if slices.Contains(args, "") {
		return p.Errf("%s is empty", path)
	}
	*target = append(*target, args...)
	return nil
}

func (p *blockParser) bare(target *bool) word {
	return word{once: true, parse: func(path string) error {
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		*target = true
		return nil
	}}
}

func (p *blockParser) onOff(target *bool) word {
	return word{once: true, parse: func(path string) error {
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

// onOffDefault is for a setting that is on unless it is turned off.
func (p *blockParser) onOffDefault(target **bool) word {
	inner := new(bool)
	w := p.onOff(inner)
	return word{once: true, parse: func(path string) error {
		*target = inner
		return w.parse(path)
	}}
}

func (p *blockParser) number(target *int) word {
	return word{once: true, parse: func(path string) error {
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

func (p *blockParser) duration(target *caddy.Duration) word {
	return word{once: true, parse: func(path string) error {
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

func (p *blockParser) durationOrOff(target *caddy.Duration) word {
	w := p.duration(target)
	return word{once: true, parse: func(path string) error {
		if p.CountRemainingArgs() == 1 {
			if p.NextArg(); p.Val() == "off" {
				*target = 0
				return nil
			}
			p.Prev()
		}
		return w.parse(path)
	}}
}

// pair reads a name and a value, and may stand again with another name.
func (p *blockParser) pair(target *map[string]string) word {
	return word{parse: func(path string) error {
		var name, value string
		if !p.AllArgs(&name, &value) {
			return p.wrongArgs(path)
		}
		return p.put(path, target, name, value)
	}}
}

// pairsOrOff is pair with the word `off` for no pair at all, which is not the default.
func (p *blockParser) pairsOrOff(target *map[string]string) word {
	w := p.pair(target)
	return word{parse: func(path string) error {
		isOff := *target != nil && len(*target) == 0
		switch {
		case p.CountRemainingArgs() != 1:
			if isOff {
				return p.Errf("%s: contradicts off", path)
			}
			return w.parse(path)
		case *target != nil:
			return p.Errf("%s: off contradicts another mention", path)
		}
		if p.NextArg(); p.Val() != "off" {
			return p.wrongArgs(path)
		}
		*target = map[string]string{}
		return nil
	}}
}

// table reads a block of names and values, of which the names are known.
func (p *blockParser) table(target *map[string]string, names []string) word {
	return word{once: true, parse: func(path string) error {
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		known := words{}
		for _, name := range names {
			known[name] = word{once: true, parse: func(entry string) error {
				var value string
				if err := p.value(entry, &value); err != nil {
					return err
				}
				return p.put(path, target, name, value)
			}}
		}
		return p.block(path, known)
	}}
}

func (p *blockParser) put(path string, target *map[string]string, name, value string) error {
	if *target == nil {
		*target = make(map[string]string)
	}
	if _, taken := (*target)[name]; taken {
		return p.Errf("%s: %s stands twice", path, name)
	}
	(*target)[name] = value
	return nil
}

// didYouMean names the known word that is nearest to what was written, if any is
// near.
func didYouMean(written string, known []string) string {
	best, bestDistance := "", max(2, len(written)/3)+1
	for _, candidate := range known {
		if d := editDistance(written, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean '%s'?", best)
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
