package web

import "github.com/caddy-tollgate/tollgate/internal/cause"

// wordsOfTopup is the explanation of a top-up that failed, whatever its cause: the user is
// signed in, and another sign-in would not help.
const wordsOfTopup = "topup"

// explanations are the explanations that people read, the keys cause.<explanation> of the
// language files. Many causes have the same text for a person: the operator of the site has
// to act.
func explanations() map[string]bool {
	words := map[string]bool{wordsOfTopup: true}
	for _, row := range cause.All() {
		words[row.Words] = true
	}
	return words
}

// codes are the codes of all causes.
func codes() (codes []string) {
	for _, row := range cause.All() {
		codes = append(codes, row.Code)
	}
	return codes
}

// explanation returns the explanation of a cause: words if that is one, or else the cause's own.
// An unknown cause gets the general text.
func explanation(words, code string) string {
	if explanations()[words] {
		return words
	}
	if row, ok := cause.Find(code); ok {
		return row.Words
	}
	return "unknown"
}

// knownCode returns code if it may be shown on a page or passed to a script of
// the application, and "" otherwise. It uses a list and not a pattern, because
// the value may come from the query of the callback, which an attacker can
// write.
func knownCode(code string) string {
	if _, ok := cause.Find(code); ok {
		return code
	}
	return ""
}
