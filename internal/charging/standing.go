package charging

import (
	"context"

	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// Standing is what a user can spend, for the endpoint userinfo.
type Standing struct {
	Available *string          // nil if it is not known
	Budgets   []BudgetStanding // nil if they are not known
}

// Members are the members of the response of userinfo.
func (s *Standing) Members() map[string]any {
	return map[string]any{"available": s.Available, "budgets": s.Budgets}
}

// BudgetStanding is how much of a budget is used.
type BudgetStanding struct {
	Budget    string `json:"budget"`
	Per       string `json:"per"`
	Spent     string `json:"spent"` // with what running requests hold
	Available string `json:"available"`
	ResetsAt  int64  `json:"resets_at"`
}

// Standing asks the ledger what a user can spend. It reads the balance if the ledger does not
// know it yet.
func (hs *Holds) Standing(ctx context.Context, s *session.Session, id *identity.Identity) *Standing {
	var found Standing
	user, err := hs.store.LedgerUser(ctx, s.User.ID())
	if err != nil {
		hs.unreachable(err)
		return &found
	}
	charge := hs.terms.Charge
	result, err := hs.keeper.Look(ctx, user, charge.Ledger)
	if err == nil && !result.Known && charge.Reserve && id.Info.IsAmount && hs.users.ReadAgain(ctx, s, hs.reader(s)) == nil {
		result, err = hs.keeper.Look(ctx, user, charge.Ledger)
	}
	if err != nil {
		hs.unreachable(err)
		return &found
	}
	if result.Known && charge.Reserve {
		available := result.Available.String()
		found.Available = &available
	}
	found.Budgets = []BudgetStanding{}
	for i, use := range result.Budgets {
		used := use.Spent.Add(use.Held)
		left := use.Budget.Limit.Sub(used)
		if left.Less(spending.Amount{}) {
			left = spending.Amount{}
		}
		found.Budgets = append(found.Budgets, BudgetStanding{
			Budget: charge.Budgets[i].Text, Per: use.Budget.Window.String(), Spent: used.String(),
			Available: left.String(), ResetsAt: use.ResetsAt.Unix(),
		})
	}
	return &found
}
