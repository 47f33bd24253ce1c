package policy

import (
	"fmt"
	"slices"
	"strings"
)

// ruleGap is a path beside a pattern of a require block to which the block does not
// apply.
type ruleGap struct {
	block   int // its number
	pattern string
	open    string // the path
}

// String is the warning: what is open, where, and what to add.
func (g ruleGap) String() string {
	return fmt.Sprintf("require[%d]: %s does not match %s, where many applications answer, too; add %s to the paths of this block", g.block, g.pattern, g.open, g.open)
}

// RuleGaps finds the paths that a client may ask for instead, so that no rule applies.
// Caddy's path matcher compares exactly: `/team/*` does not match `/team`,
// and `/pay` does not match `/pay/`, while many applications answer both alike.
//
// There is no gap if another pattern of the block matches the path, or if the path is public
// anyway. A path that the operator names in another place is a decision, not a gap.
func RuleGaps(public, optional []string, required [][]string) (gaps []ruleGap) {
	for i, block := range required {
		for _, pattern := range block {
			open, ok := besidePattern(pattern)
			if !ok || matchesLiterally(block, open) || matchesLiterally(public, open) || names(optional, open) {
				continue
			}
			if !slices.ContainsFunc(required, func(other []string) bool { return names(other, open) }) {
				gaps = append(gaps, ruleGap{i, pattern, open})
			}
		}
	}
	return gaps
}

// MatcherGaps finds the same paths beside the path patterns of the directive's matcher.
// There is no login at such a path, unless the operator names it in another place. A
// pattern that does not begin with a slash matches nothing. It may be a value in the wrong
// place, even a secret.
func MatcherGaps(selected, public, optional []string) (warnings []string) {
	for _, pattern := range selected {
		open, ok := besidePattern(pattern)
		if ok && pattern[0] == '/' && !matchesLiterally(selected, open) && !matchesLiterally(public, open) && !names(optional, open) {
			warnings = append(warnings, fmt.Sprintf("the matcher of tollgate: %s does not match %s, which therefore needs no login; add %s to the matcher, or to `public` if it is open on purpose", pattern, open, open))
		}
	}
	return warnings
}

// besidePattern returns the path beside a pattern: without the slash at the end, or with
// one. ok is false for a pattern that has no such path.
func besidePattern(pattern string) (path string, ok bool) {
	base, below := strings.CutSuffix(pattern, "/*")
	switch {
	case base == "" || base == "/" || strings.ContainsAny(base, `*?[\{`):
		return "", false
	case below:
		return base, true
	case strings.HasSuffix(base, "/"):
		return strings.TrimSuffix(base, "/"), true
	default:
		return base + "/", true
	}
}

// names reports whether a path is exactly one of the patterns.
func names(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return strings.EqualFold(pattern, path) })
}
