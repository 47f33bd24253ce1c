package policy

import (
	"slices"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// Rule is one require block, without its paths. A field that is not set is not a condition.
type Rule struct {
	Balance *account.Amount
	// Required is Balance, for the ledger. It is set if any rule has a Reserve.
	Required spending.Amount
	// Reserve is what a request holds while it runs.
	Reserve *Reserve
	Budgets []Budget
	Domains []string // in lower case
	Users   []string
}

// Reserve is what a request holds while it runs: as the operator wrote it, and as a number.
type Reserve struct {
	Text  string
	Value spending.Amount
}

// Budget is what a user may spend in a window at the paths of a block.
type Budget struct {
	Text string // the limit, as the operator wrote it
	spending.Budget
}

// Blocks says which require blocks apply to a path, with one bit for each block. It is
// comparable, because the results of the readings of a path are compared.
type Blocks uint64

// MaxBlocks is the maximum number of require blocks.
const MaxBlocks = 64

// Rules are all require blocks, in their order.
type Rules []Rule

// Among returns the rules of the given blocks.
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

// Need returns the highest balance that the rules require, or nil if they require none.
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

// Charge is what a request needs and holds, and which budgets it counts against.
type Charge struct {
	// Amount is the highest Reserve of the rules. Reserve is false if they have none.
	Amount  spending.Amount
	Reserve bool
	// Required is the highest balance or Reserve, and RequiredText is what the operator
	// wrote.
	Required     spending.Amount
	RequiredText string
	// Budgets are all budgets of the rules, and Ledger the same for the ledger.
	Budgets []Budget
	Ledger  []spending.Budget
}

// Charge returns what the rules hold and count. It returns nil if they have neither a reserve
// nor a budget. If several rules apply, a request holds the highest amount, once.
func (rs Rules) Charge() *Charge {
	var c Charge
	for _, r := range rs {
		if r.Reserve != nil && (!c.Reserve || c.Amount.Less(r.Reserve.Value)) {
			c.Amount, c.Reserve = r.Reserve.Value, true
			c.demand(r.Reserve.Value, r.Reserve.Text)
		}
		for _, b := range r.Budgets {
			c.Budgets, c.Ledger = append(c.Budgets, b), append(c.Ledger, b.Budget)
		}
	}
	if !c.Reserve && len(c.Budgets) == 0 {
		return nil
	}
	for _, r := range rs {
		if r.Balance != nil {
			c.demand(r.Required, r.Balance.Text)
		}
	}
	return &c
}

// demand raises what is required.
func (c *Charge) demand(amount spending.Amount, text string) {
	if c.RequiredText == "" || c.Required.Less(amount) {
		c.Required, c.RequiredText = amount, text
	}
}

// Refuse returns why the rules refuse a user, apart from the balance. It returns "" if they
// do not refuse the user.
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

// domainOf returns the domain of an e-mail address, in lower case. It returns "" unless the
// address has exactly one `@`, because otherwise programs disagree about the domain.
func domainOf(email string) string {
	local, domain, _ := strings.Cut(email, "@")
	if local == "" || strings.Contains(domain, "@") {
		return ""
	}
	return LowerASCII(domain)
}

// LowerASCII changes A to Z to lower case, and no other letter. Other letters, such as the
// Kelvin sign, could become a letter of another domain.
func LowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
