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
	// ticketLifetime is long enough to look for a credit card.
	ticketLifetime = 10 * time.Minute

	// maxTickets bounds the top-up URLs that are open at the same time.
	maxTickets = 10_000
)

// topUpDollars are the amounts one can add, fixed so that a form cannot ask
// for another.
var topUpDollars = []int64{5, 10, 50}

// ticketTable knows the top-up URLs that were given out. The ticket in such
// a URL opens the page of one user, for a while, to a browser that is not
// signed in here: the client got it with an access token.
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

// topUpURL is the API: where the client should send its user.
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

// topUpPage shows the balance and the amounts one can add.
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

// addMoney is the form of that page. It answers with a redirect, so that
// reloading the page does not add the money again.
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

// topUpUser is whoever the ticket or the sign-in cookie stands for. The user
// in the URL only has to agree; it opens nothing by itself.
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

// topUpAction is the page's own address, with what was added if anything.
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
