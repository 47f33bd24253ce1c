package simulator

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// ticketLifetime is how long a top-up URL is valid. A user needs time to
	// find a credit card.
	ticketLifetime = 10 * time.Minute

	// maxTickets is the maximum number of valid top-up URLs.
	maxTickets = 10_000
)

// topUpDollars are the amounts that a user can add. A form with another amount is
// refused.
var topUpDollars = []int64{5, 10, 50}

// ticketTable holds the tickets of the top-up URLs. A ticket opens the page of
// one user for a limited time, also in a browser that is not signed in here.
// The client got the URL with the user's access token.
type ticketTable struct {
	mu      sync.Mutex // guards tickets
	tickets *table[fingerprint, ticket]
}

type ticket struct {
	userID  int64
	expires time.Time
}

func newTicketTable() *ticketTable {
	return &ticketTable{tickets: newTable[fingerprint, ticket](maxTickets)}
}

func (t *ticketTable) issue(userID int64, now time.Time) string {
	value := "ticket_" + randomHex(32)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tickets.put(fingerprintOf(value), ticket{userID, now.Add(ticketLifetime)})
	return value
}

func (t *ticketTable) user(value string, now time.Time) (int64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.tickets.get(fingerprintOf(value))
	if !ok || !now.Before(found.expires) {
		return 0, false
	}
	return found.userID, true
}

// topUpURL serves the API that returns the URL of the top-up page.
func (p *Provider) topUpURL(w http.ResponseWriter, r *http.Request) {
	user, _, ok := p.bearer(w, r)
	if !ok {
		return
	}
	query := url.Values{
		"user":   {formatID(user.ID)},
		"ticket": {p.tickets.issue(user.ID, p.options.Now())},
	}
	writeJSON(w, http.StatusOK, map[string]string{
		"topup_url": p.baseURL(r) + TopUpPagePath + "?" + query.Encode(),
	})
}

// topUpPage shows the balance and the amounts that the user can add.
func (p *Provider) topUpPage(w http.ResponseWriter, r *http.Request) {
	user, ok := p.topUpUser(r)
	if !ok {
		showTopUpRefusal(w)
		return
	}
	added, _ := parseAmount(r.URL.Query().Get("added"))
	showPage(w, http.StatusOK, "topup.html", map[string]any{
		"Title":   "Top up",
		"User":    user,
		"Action":  topUpAction(r, 0),
		"Amounts": topUpDollars,
		"Added":   added,
	})
}

// addMoney handles the form of the top-up page. It responds with a redirect, so
// that reloading the page does not add the money again.
func (p *Provider) addMoney(w http.ResponseWriter, r *http.Request) {
	user, ok := p.topUpUser(r)
	if !ok {
		showTopUpRefusal(w)
		return
	}
	form, err := readForm(r)
	if err != nil {
		showMessage(w, http.StatusBadRequest, "Nothing added", err.Error())
		return
	}
	dollars, ok := parseAmount(form.Get("amount"))
	if !ok {
		showMessage(w, http.StatusBadRequest, "Nothing added", "The amount is not one of those offered.")
		return
	}
	if err := p.TopUp(user.ID, dollars*100); err != nil {
		showMessage(w, http.StatusBadRequest, "Nothing added", err.Error())
		return
	}
	http.Redirect(w, r, topUpAction(r, dollars), http.StatusSeeOther)
}

// topUpUser returns the user of the ticket, or else of the session cookie. The
// user in the URL must be the same, but gives no access by itself.
func (p *Provider) topUpUser(r *http.Request) (User, bool) {
	query := r.URL.Query()
	user, ok := p.signedIn(r)
	if value := query.Get("ticket"); value != "" {
		var id int64
		if id, ok = p.tickets.user(value, p.options.Now()); ok {
			user, ok = p.users.byID(id)
		}
	}
	if !ok || (query.Has("user") && query.Get("user") != formatID(user.ID)) {
		return User{}, false
	}
	return user, true
}

// topUpAction returns the page's own URL, with the added amount if it is not 0.
func topUpAction(r *http.Request, added int64) string {
	query := url.Values{}
	for _, name := range []string{"user", "ticket"} {
		if value := r.URL.Query().Get(name); value != "" {
			query.Set(name, value)
		}
	}
	if added > 0 {
		query.Set("added", formatID(added))
	}
	return TopUpPagePath + "?" + query.Encode()
}

func parseAmount(text string) (dollars int64, ok bool) {
	dollars, err := strconv.ParseInt(text, 10, 64)
	if err != nil || !slices.Contains(topUpDollars, dollars) {
		return 0, false
	}
	return dollars, true
}

func formatID(id int64) string { return strconv.FormatInt(id, 10) }
