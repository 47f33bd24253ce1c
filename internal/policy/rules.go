package policy

import (
	"slices"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// Rule is one require block, without its paths. A field that is not set is no condition.
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

// Charge returns nil if the rules have neither a reserve nor a budget. A request pays once,
// however many rules apply: of several amounts the highest counts.
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
