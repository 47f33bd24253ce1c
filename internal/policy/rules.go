package policy

import (
	"slices"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// Rule is one require block, without its paths. A field that is not set is no condition.
type Rule struct {
	Balance *account.Amount
	Domains []string // in lower case
	Users   []string
}

// Blocks says which require blocks apply to a path, one bit each. It can be compared,
// so that the readings of a path can be.
type Blocks uint64

// MaxBlocks is how many require blocks there may be.
const MaxBlocks = 64

// Rules are all require blocks, in their order.
type Rules []Rule

// Among gives the rules that apply.
func (rs Rules) Among(which Blocks) Rules {
	if which == 0 {
		return nil
	}
	var chosen Rules
	for i, r := range rs {
		if which&(1<<i) != 0 {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// Need is the highest balance that the rules ask for, or nil when they ask for none.
func (rs Rules) Need(passUnknown bool) *account.Need {
	var highest *account.Amount
	for _, r := range rs {
		if r.Balance != nil && (highest == nil || r.Balance.Value.Compare(highest.Value) > 0) {
			highest = r.Balance
		}
	}
	if highest == nil {
		return nil
	}
	return &account.Need{Amount: highest, PassUnknown: passUnknown}
}

// Refuse returns why the rules refuse a user, apart from the balance. It is empty if they do
// not.
func (rs Rules) Refuse(u *oauth.UserInfo) (reason string) {
	for _, r := range rs {
		switch {
		case len(r.Domains) > 0 && !slices.Contains(r.Domains, domainOf(u.Text(oauth.FieldEmail))):
			return "domain"
		case len(r.Users) > 0 && !slices.Contains(r.Users, u.ID()):
			return "user"
		}
	}
	return ""
}

// domainOf is the domain of an e-mail address, in lower case. Of an address with
// another number of `@` than one nobody can say for certain what its domain is: it has
// none.
func domainOf(email string) string {
	local, domain, _ := strings.Cut(email, "@")
	if local == "" || strings.Contains(domain, "@") {
		return ""
	}
	return LowerASCII(domain)
}

// LowerASCII changes only A to Z. Other letters, such as the Kelvin sign, could turn into a
// letter of another domain.
func LowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
