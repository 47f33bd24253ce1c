package tollgate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

func resolveReserve(r *config.Resolver, setting, raw string) *policy.Reserve {
	text := r.Text(setting, raw, "")
	if text == "" {
		return nil
	}
	return &policy.Reserve{Text: text, Value: resolveMoney(r, setting, raw, text)}
}

// resolveMoney reads an amount that the ledger counts with.
func resolveMoney(r *config.Resolver, setting, raw, text string) spending.Amount {
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

// resolveBudgets reads the budgets of a block. Each window may have one.
func (s *settings) resolveBudgets(r *config.Resolver, setting string, block *Require) (budgets []policy.Budget) {
	for i, b := range block.Budget {
		if b == nil {
			b = &Budget{}
		}
		at := fmt.Sprintf("%s[%d]", setting, i)
		if b.Amount == "" {
			r.Fail(at+".amount", "is required, such as 5.00")
		}
		word := r.OneOf(at+".per", b.Per, "", "hour", "day", "month")
		window, ok := spending.ParseWindow(word)
		if !ok {
			r.Fail(at+".per", "is required: hour, day or month")
		}
		if slices.ContainsFunc(budgets, func(other policy.Budget) bool { return other.Window == window }) {
			r.Fail(at, "there is a budget per %s already", word)
		}
		text := r.Text(at+".amount", b.Amount, "")
		limit := resolveMoney(r, at+".amount", b.Amount, text)
		budgets = append(budgets, policy.Budget{Text: text, Budget: spending.Budget{Key: s.budgetKey(block.Paths), Window: window, Limit: limit}})
	}
	return budgets
}

// budgetKey names the account of the budgets of a block. It does not depend on the amount, so
// that another amount goes on with what was spent.
func (s *settings) budgetKey(paths []string) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(paths)))
	sum := sha256.Sum256([]byte(s.redirectURI + "\x00" + strings.Join(sorted, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// resolveCharge checks what only all blocks together show.
func (s *settings) resolveCharge(r *config.Resolver, h *Handler) {
	if r.Err != nil {
		return
	}
	if s.charge = s.rules.Charge(); s.charge == nil {
		return
	}
	accounts := map[spending.Budget]int{}
	for i, rule := range s.rules {
		setting := fmt.Sprintf("require[%d]", i)
		if h.ForwardAuth != nil && (rule.Reserve != nil || len(rule.Budgets) > 0) {
			word := "reserve"
			if rule.Reserve == nil {
				word = "budget"
			}
			r.Fail(setting+"."+word, "cannot be used with forward_auth: the endpoint auth does not see when a response ends, nor what it cost; let tollgate pass the requests on itself, or remove one of the two")
		}
		if rule.Balance != nil && s.charge.Reserve {
			required, err := spending.ParseRequired(rule.Balance.Text)
			r.Check(setting+".balance", h.Require[i].Balance, err)
			s.rules[i].Required = required
		}
		for _, b := range rule.Budgets {
			account := spending.Budget{Key: b.Key, Window: b.Window}
			if other, taken := accounts[account]; taken {
				r.Fail(setting+".budget", "require[%d] has a budget per %s for the same paths: keep one of them", other, b.Window)
			}
			accounts[account] = i
		}
	}
	s.charge = s.rules.Charge()
}
