package charging

import (
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// Verdict says whether a request can be paid.
type Verdict int

const (
	// Unchecked: it is not known whether the request can be paid.
	Unchecked Verdict = iota
	// Admitted: the request can be paid.
	Admitted
	// Lacking: the available money is too little, or the balance is not an amount.
	Lacking
	// OverBudget: a budget is used up.
	OverBudget
)

// Answer is a Verdict with its details.
type Answer struct {
	Verdict Verdict
	// Held is the hold of an admitted request. It is nil after a dry run.
	Held *spending.Held
	// Short is the amount missing from the balance. It is set with Lacking only.
	Short *account.Shortfall
	// Available is the money that no request holds. It is set with Lacking, unless the balance
	// is not an amount.
	Available *string
	// Over is the budget that is used up. It is set with OverBudget only.
	Over *SpentBudget
	// Cause is set with Unchecked only, and only if the ledger cannot be reached.
	Cause string
	// RetryAfter is set with Unchecked only.
	RetryAfter time.Duration
}

// SpentBudget is a budget that is used up.
type SpentBudget struct {
	policy.Budget
	Spent      string // with what running requests hold
	ResetsAt   time.Time
	RetryAfter time.Duration
}

// lacking returns the answer if the available money is too little, or if the balance is not an
// amount.
func lacking(id *identity.Identity, charge *policy.Charge, result spending.Result, noAmount bool) Answer {
	short := &account.Shortfall{Required: charge.RequiredText}
	if noAmount {
		return Answer{Verdict: Lacking, Short: short}
	}
	available := result.Available.String()
	short.Balance = &available
	if id.Info.IsAmount {
		balance := id.Info.Text(oauth.FieldBalance)
		short.Balance = &balance
	}
	return Answer{Verdict: Lacking, Short: short, Available: &available}
}

// overBudget returns the answer if a budget is used up.
func overBudget(charge *policy.Charge, use spending.BudgetUse, now time.Time) Answer {
	over := &SpentBudget{Spent: use.Spent.Add(use.Held).String(), ResetsAt: use.ResetsAt, RetryAfter: use.ResetsAt.Sub(now)}
	for _, b := range charge.Budgets {
		if b.Budget == use.Budget {
			over.Budget = b
		}
	}
	return Answer{Verdict: OverBudget, Over: over}
}
