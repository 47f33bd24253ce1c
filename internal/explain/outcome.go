package explain

import (
	"net/http"

	"github.com/caddy-tollgate/tollgate/internal/browser"
)

// Refuse notes that the gateway itself responds, and returns the explanation.
func (e *Explanation) Refuse(status int, outcome string) *Explanation {
	e.Status, e.Outcome = status, outcome
	return e
}

// Pass notes that the request passes: as a user, or as anonymous if userID is empty.
func (e *Explanation) Pass(userID string) {
	e.Outcome = "passes to the upstream as anonymous"
	if userID != "" {
		e.Outcome = "passes to the upstream as user " + userID
	}
}

// AskLedger notes that the ledger decides, too.
func (e *Explanation) AskLedger() {
	e.Notes = append(e.Notes, "before it passes, the ledger is asked whether the budget and what other requests hold leave enough: that is not part of this explanation")
}

// DemandLogin notes that the request needs a sign-in. start is the path of the endpoint, and
// loginPage reports whether people first see a page with a button.
func (e *Explanation) DemandLogin(r *http.Request, start string, loginPage bool) {
	switch {
	case !browser.IsNavigation(r):
		e.Refuse(http.StatusUnauthorized, "needs a sign-in: 401, because this is not a page navigation")
	case loginPage:
		e.Refuse(http.StatusUnauthorized, "needs a sign-in: the sign-in page")
	default:
		e.Refuse(http.StatusFound, "needs a sign-in: redirected to "+start)
	}
}

// DemandMoney notes that the user's balance is too low.
func (e *Explanation) DemandMoney() {
	e.Refuse(http.StatusPaymentRequired, "insufficient balance: "+LackOf("balance"))
	e.Notes = append(e.Notes, "the gateway reads the balance from the provider again before it answers 402")
}

// LackOf says which condition is not met, by the reason of the decision. Returns "" if none
// is.
func LackOf(reason string) string {
	switch reason {
	case "balance":
		return "the balance is too low, or not known"
	case "domain":
		return "the domain of the user's e-mail address is not in the list"
	case "user":
		return "the user's id is not in the list"
	case "status":
		return "the user is not active"
	default:
		return ""
	}
}
