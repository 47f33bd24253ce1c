package tollgate

import (
	"slices"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
)

// rule is one require block, without its paths. What is not set asks nothing.
type rule struct {
	balance *amount
	domains []string // in lower case
	users   []string
}

// amount is a required balance, as the operator wrote it and as it is compared.
type amount struct {
	text  string
	value decimal.Decimal
	// near is twice the value: a balance below that may soon be too low.
	near decimal.Decimal
}

// blocks says which require blocks apply to a path, one bit each. It can be compared,
// so that the readings of a path can be.
type blocks uint64

// maxBlocks is how many require blocks there may be.
const maxBlocks = 64

// rules are all require blocks, in their order.
type rules []rule

// among gives the rules that apply.
func (rs rules) among(which blocks) rules {
	if which == 0 {
		return nil
	}
	var chosen rules
	for i, r := range rs {
		if which&(1<<i) != 0 {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// need is the highest balance that the rules ask for, or nil when they ask for none.
func (rs rules) need(passUnknown bool) *need {
	var highest *amount
	for _, r := range rs {
		if r.balance != nil && (highest == nil || r.balance.value.Compare(highest.value) > 0) {
			highest = r.balance
		}
	}
	if highest == nil {
		return nil
	}
	return &need{amount: highest, passUnknown: passUnknown}
}

// refuse gives the reason why a user may not pass, whatever the balance is, or nothing.
func (rs rules) refuse(u *userInfo) (reason string) {
	for _, r := range rs {
		switch {
		case len(r.domains) > 0 && !slices.Contains(r.domains, domainOf(u.text(fieldEmail))):
			return "domain"
		case len(r.users) > 0 && !slices.Contains(r.users, u.id()):
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
	return lowerASCII(domain)
}

// lowerASCII leaves all other letters as they are: some of them, such as the Kelvin
// sign, would become a letter of another domain.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// need is what a path asks of a balance. None is nil.
type need struct {
	*amount
	// passUnknown: a balance that is not known is good enough, unless it is plainly
	// negative.
	passUnknown bool
	// ampleAge, if set, is the age from which on also a balance is re-read before it
	// decides that suffices amply.
	ampleAge time.Duration
}

// sufficiency is how a balance stands to a need.
type sufficiency int

const (
	// lacking: it is too low, or not known, and that does not do.
	lacking sufficiency = iota
	// scarce: it suffices, but may not for long.
	scarce
	// ample: it suffices.
	ample
)

// meet compares a balance with a need, exactly.
func (n *need) meet(v userView) sufficiency {
	if n == nil {
		return ample
	}
	balance, known := v.balance()
	switch {
	case !known && n.passUnknown && !v.owes():
		return ample
	case !known, balance.Compare(n.value) < 0:
		return lacking
	case balance.Compare(n.near) < 0:
		return scarce
	default:
		return ample
	}
}

// shortfall is what a request lacks that is turned away for its balance.
type shortfall struct {
	balance  *string // as the provider wrote it, or nil when it is not known
	required string
}

func (n *need) shortfall(v userView) *shortfall {
	short := &shortfall{required: n.text}
	if _, known := v.balance(); known {
		text := v.info.text(fieldBalance)
		short.balance = &text
	}
	return short
}
