package resolve

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// plainAmount is an amount as an operator writes it, without a currency.
var plainAmount = regexp.MustCompile(`^[0-9]{1,100}(\.[0-9]{1,100})?$`)

// Amount reads a balance. It returns nil if raw is empty.
func Amount(r *config.Resolver, setting, raw string) *account.Amount {
	text := r.Text(setting, raw, "")
	if text == "" {
		return nil
	}
	if !plainAmount.MatchString(text) {
		r.Check(setting, raw, fmt.Errorf("%q is not a plain amount such as 0.50; it must not be negative", text))
	}
	value, _ := decimal.Parse(text)
	return &account.Amount{Text: text, Value: value, Near: value.Double()}
}

// Reserve reads what a request holds while it runs. It returns nil if raw is empty.
func Reserve(r *config.Resolver, setting, raw string) *policy.Reserve {
	text := r.Text(setting, raw, "")
	if text == "" {
		return nil
	}
	return &policy.Reserve{Text: text, Value: money(r, setting, raw, text)}
}

// money reads an amount that the ledger counts with.
func money(r *config.Resolver, setting, raw, text string) spending.Amount {
	if !plainAmount.MatchString(text) {
		r.Check(setting, raw, fmt.Errorf("%q is not a plain amount such as 0.50; it must not be negative", text))
		return spending.Amount{}
	}
	amount, err := spending.ParseRequired(text)
	if err == nil && amount.IsZero() {
		err = errors.New("must be more than 0")
	}
	r.Check(setting, raw, err)
	return amount
}

// Budgets are the budgets of one require block. Each window may have one.
type Budgets struct {
	List []policy.Budget
	key  string
}

// NewBudgets returns the budgets of a block with these paths, on the site with this
// redirect_uri. Their account does not depend on the amount, so that another amount goes on
// with what was spent.
func NewBudgets(redirectURI string, paths []string) *Budgets {
	sorted := slices.Compact(slices.Sorted(slices.Values(paths)))
	sum := sha256.Sum256([]byte(redirectURI + "\x00" + strings.Join(sorted, "\x00")))
	return &Budgets{key: hex.EncodeToString(sum[:16])}
}

// Add reads one budget.
func (b *Budgets) Add(r *config.Resolver, setting, amount, per string) {
	if amount == "" {
		r.Fail(setting+".amount", "is required, such as 5.00")
	}
	word := r.OneOf(setting+".per", per, "", "hour", "day", "month")
	window, ok := spending.ParseWindow(word)
	if !ok {
		r.Fail(setting+".per", "is required: hour, day or month")
	}
	if slices.ContainsFunc(b.List, func(other policy.Budget) bool { return other.Window == window }) {
		r.Fail(setting, "there is a budget per %s already", word)
	}
	text := r.Text(setting+".amount", amount, "")
	limit := money(r, setting+".amount", amount, text)
	b.List = append(b.List, policy.Budget{Text: text, Budget: spending.Budget{Key: b.key, Window: window, Limit: limit}})
}

// Charge checks all rules together, and returns what they hold and count together. It completes the rules. balances are the rules' balances as configured.
func Charge(r *config.Resolver, rules policy.Rules, balances []string, forwardAuth bool) *policy.Charge {
	charge := rules.Charge()
	if charge == nil {
		return nil
	}
	accounts := map[spending.Budget]int{}
	for i, rule := range rules {
		setting := fmt.Sprintf("require[%d]", i)
		if forwardAuth && (rule.Reserve != nil || len(rule.Budgets) > 0) {
			word := "reserve"
			if rule.Reserve == nil {
				word = "budget"
			}
			r.Fail(setting+"."+word, "cannot be used with forward_auth: the endpoint auth does not see when a response ends, nor what it cost; let tollgate pass the requests on itself, or remove one of the two")
		}
		if rule.Balance != nil && charge.Reserve {
			required, err := spending.ParseRequired(rule.Balance.Text)
			r.Check(setting+".balance", balances[i], err)
			rules[i].Required = required
		}
		for _, b := range rule.Budgets {
			account := spending.Budget{Key: b.Key, Window: b.Window}
			if other, taken := accounts[account]; taken {
				r.Fail(setting+".budget", "require[%d] has a budget per %s for the same paths: keep one of them", other, b.Window)
			}
			accounts[account] = i
		}
	}
	return rules.Charge()
}
