package charging

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/respond"
)

// lackingProblem is the problem document for an insufficient balance.
type lackingProblem struct {
	respond.Problem
	Balance *string `json:"balance"` // null if the balance is unknown
	// Available is what is left of the balance, if requests hold money.
	Available *string `json:"available,omitempty"`
	Required  string  `json:"required"`
	TopupURL  string  `json:"topup_url,omitempty"`
}

// RefuseLacking answers a script's request whose user has a balance that is too low. topupURL
// is empty if the provider has no top-up.
func RefuseLacking(w http.ResponseWriter, r *http.Request, short *account.Shortfall, available *string, topupURL string) error {
	title := "Insufficient balance"
	if short.Balance == nil {
		title = "Unknown balance"
	}
	return respond.JSON(w, r, http.StatusPaymentRequired, respond.TypeProblem, lackingProblem{
		Problem:   respond.Problem{Type: "about:blank", Title: title, Status: http.StatusPaymentRequired, Error: "insufficient_balance"},
		Balance:   short.Balance,
		Available: available,
		Required:  short.Required,
		TopupURL:  topupURL,
	})
}

// budgetProblem is the problem document of a budget that is used up.
type budgetProblem struct {
	respond.Problem
	Budget   string `json:"budget"`
	Per      string `json:"per"`
	Spent    string `json:"spent"`
	ResetsAt int64  `json:"resets_at"`
}

// RefuseOverBudget answers a script's request whose user has used up a budget.
func RefuseOverBudget(w http.ResponseWriter, r *http.Request, over *SpentBudget) error {
	w.Header().Set("Retry-After", WholeSeconds(over.RetryAfter))
	return respond.JSON(w, r, http.StatusPaymentRequired, respond.TypeProblem, budgetProblem{
		Problem:  respond.Problem{Type: "about:blank", Title: "Budget used up", Status: http.StatusPaymentRequired, Error: "budget_exceeded"},
		Budget:   over.Text,
		Per:      over.Window.String(),
		Spent:    over.Spent,
		ResetsAt: over.ResetsAt.Unix(),
	})
}

// WholeSeconds returns the value of Retry-After: whole seconds, rounded up, at least one.
func WholeSeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64(math.Ceil(d.Seconds()))), 10)
}
