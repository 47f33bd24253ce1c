package tollgate

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

const (
	// admitTimeout is how long a request waits for its admission: for readings of the
	// balance, and for earlier requests of the same user that wait for one.
	admitTimeout = 10 * time.Second
	// busyRetry is what Retry-After says if the user has too many requests running.
	busyRetry = time.Second
	// uncheckedRetry is what Retry-After says if the balance or the ledger cannot be read.
	uncheckedRetry = retrySeconds * time.Second
)

// holds admits requests that may cost money, and settles them when they have ended.
type holds struct {
	settings *settings
	store    session.Store
	state    *siteState
	keeper   *spending.Keeper
	tokens   *tokens
	now      func() time.Time
	logger   *zap.Logger
}

// siteKeeper is the Keeper of a site's ledger. It outlives a reload, unless the ledger is
// another one after it.
type siteKeeper struct {
	ledger spending.Ledger
	*spending.Keeper
}

func (h *Handler) newHolds() *holds {
	ledger := h.store.Ledger(h.state.localAt(h.settings.client.UserinfoEndpoint))
	return &holds{
		settings: h.settings, store: h.store, state: h.state, keeper: h.state.keeperOf(ledger),
		tokens: h.tokens, now: h.now, logger: h.logger,
	}
}

// localAt is the ledger of this process for the users of one user information endpoint.
func (s *siteState) localAt(endpoint string) *spending.Local {
	s.mu.Lock()
	defer s.mu.Unlock()
	local, ok := s.locals[endpoint]
	if !ok {
		local = spending.NewLocal(s.now)
		if s.locals == nil {
			s.locals = make(map[string]*spending.Local)
		}
		s.locals[endpoint] = local
	}
	return local
}

// keeperOf is the Keeper of a ledger. That of the previous configuration goes on if the
// ledger is the same.
func (s *siteState) keeperOf(ledger spending.Ledger) *spending.Keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeper == nil || s.keeper.ledger != ledger {
		s.keeper = &siteKeeper{ledger, spending.NewKeeper(ledger, s.logLate)}
	}
	return s.keeper.Keeper
}

// logLate writes down that a ledger took a settlement only when it was repeated.
func (s *siteState) logLate(_ spending.Hold, settled spending.Settled) {
	requests, due := s.lateHolds.Next(s.now())
	if !due {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.handlers) > 0 {
		s.handlers[len(s.handlers)-1].logger.Info("what a request cost was booked late: the ledger could not be reached when it ended",
			zap.Int("requests", requests), zap.Bool("over_hold", settled.OverHold))
	}
}

// needWithHold is the balance that a user needs whose request holds its amount. The ledger
// decides about the request itself. While it streams, it goes on until nothing is left: its
// own spending may take the balance below what the rule requires.
func (h *Handler) needWithHold(v *visit) *account.Need {
	if !v.streaming {
		return nil
	}
	least, _ := decimal.Parse("0.000000000001") // the smallest amount that the ledger counts
	return &account.Need{
		Amount:      &account.Amount{Text: least.String(), Value: least, Near: least},
		PassUnknown: h.settings.passUnknown,
	}
}

// admit asks the ledger whether a request that meets the rules can be paid. With dry it takes
// no hold.
func (h *Handler) admit(r *http.Request, v *visit, asked policy.Demand, decided decision, dry bool) decision {
	before := decided.id.View.Info
	result := h.holds.admit(r.Context(), v.session, decided.id, decided.charge, dry)
	if result.verdict == verdictPass && decided.id.View.Info != before { // it waited for a reading
		result = h.judgeAgain(v, asked, result)
	}
	switch {
	case asked.Access == policy.AccessOptional && result.verdict != verdictPass:
		return decision{verdict: verdictPass} // as anonymous
	case result.reason != "" && !dry:
		h.audit.event("denied", r, v.session, zap.String("reason", result.reason))
	}
	return result
}

// judgeAgain checks after a wait that the session still lives, and that the user may pass.
func (h *Handler) judgeAgain(v *visit, asked policy.Demand, result decision) decision {
	ended, reason := h.sessions.hasEnded(v), h.refusal(result.id, h.settings.rules.Among(asked.Blocks))
	if !ended && reason == "" {
		return result
	}
	if result.held != nil {
		_, _ = result.held.Settle(context.Background(), spending.Free, spending.Amount{}) // the Keeper repeats it
	}
	if ended {
		return decision{verdict: verdictLogin}
	}
	return decision{verdict: verdictRefused, reason: reason}
}

var errNoAmount = errors.New("the provider's balance is not an amount")

// admit asks the ledger. It reads the balance if the ledger needs that, and gives id what was
// read.
func (hs *holds) admit(ctx context.Context, s *session.Session, id *identity.Identity, charge *policy.Charge, dry bool) decision {
	user, err := hs.store.LedgerUser(ctx, s.User.ID())
	if err != nil {
		return hs.unreachable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	noAmount := false
	ask := &spending.Ask{
		User: user,
		Request: spending.Request{
			Amount: charge.Amount, Required: charge.Required, Reserve: charge.Reserve, Budgets: charge.Ledger,
			MaxAge: hs.settings.ages.MaxAge, RefusalAge: account.LackingAge, Dry: dry,
		},
		MaxStale:    hs.settings.ages.MaxStale,
		PassUnknown: hs.settings.passUnknown && !id.Owes(),
	}
	ask.Reread = func(ctx context.Context) error {
		err := hs.tokens.users.ReadAgain(ctx, s, hs.tokens.userReader(s))
		id.View = hs.tokens.users.Latest(s, hs.settings.ages)
		ask.PassUnknown = hs.settings.passUnknown && !id.Owes()
		if noAmount = err == nil && !id.Info.IsAmount; noAmount {
			return errNoAmount
		}
		return err
	}
	held, result, err := hs.keeper.Admit(ctx, ask)
	switch {
	case err != nil:
		return hs.unreachable(err)
	case result.Outcome == spending.Admitted:
		if result.Known && charge.Reserve {
			id.Available = result.Available.Sub(charge.Amount).String()
		}
		return decision{verdict: verdictPass, id: id, held: held, charge: charge}
	case result.Outcome == spending.Insufficient, noAmount && result.Outcome == spending.NeedsReading:
		return lacking(id, charge, result, noAmount)
	case result.Outcome == spending.OverBudget:
		return decision{verdict: verdictOverBudget, reason: "budget", over: overBudget(charge, result.Over, hs.now())}
	case result.Outcome == spending.Unavailable:
		return decision{verdict: verdictUnchecked, retryAfter: result.RetryAfter}
	case result.Outcome == spending.Busy:
		return decision{verdict: verdictUnchecked, retryAfter: busyRetry}
	default:
		return decision{verdict: verdictUnchecked, retryAfter: uncheckedRetry}
	}
}

// unreachable is the decision if the ledger cannot be reached: the request never passes.
func (hs *holds) unreachable(err error) decision {
	if requests, due := hs.state.unwritten.Next(hs.now()); due {
		hs.logger.Error("the ledger of what users spend cannot be reached; requests that need it get 503", zap.Int("requests", requests), zap.Error(err))
	}
	return decision{verdict: verdictUnchecked, retryAfter: uncheckedRetry}
}

// lacking is the decision if the available money is too little, or if the balance is not an
// amount.
func lacking(id *identity.Identity, charge *policy.Charge, result spending.Result, noAmount bool) decision {
	short := &account.Shortfall{Required: charge.RequiredText}
	if noAmount {
		return decision{verdict: verdictLacking, reason: "balance", short: short}
	}
	available := result.Available.String()
	short.Balance = &available
	if id.Info.IsAmount {
		balance := id.Info.Text(oauth.FieldBalance)
		short.Balance = &balance
	}
	return decision{verdict: verdictLacking, reason: "balance", short: short, available: &available}
}

// spentBudget is a budget that is used up.
type spentBudget struct {
	budget     policy.Budget
	spent      string // with what running requests hold
	resetsAt   time.Time
	retryAfter time.Duration
}

func overBudget(charge *policy.Charge, use spending.BudgetUse, now time.Time) *spentBudget {
	over := &spentBudget{spent: use.Spent.Add(use.Held).String(), resetsAt: use.ResetsAt, retryAfter: use.ResetsAt.Sub(now)}
	for _, b := range charge.Budgets {
		if b.Budget == use.Budget {
			over.budget = b
		}
	}
	return over
}

// noteReading tells the ledger that a reading of a user's balance begins now.
func (hs *holds) noteReading(ctx context.Context, s *session.Session) (end func(context.Context, *oauth.UserInfo)) {
	user, err := hs.store.LedgerUser(ctx, s.User.ID())
	if err != nil {
		return func(context.Context, *oauth.UserInfo) {}
	}
	note := hs.keeper.BeginReading(ctx, user)
	return func(ctx context.Context, info *oauth.UserInfo) {
		b := spending.Balance{Known: info.IsAmount}
		if b.Known {
			b.Amount = spending.BalanceOf(info.Amount)
		}
		note(ctx, b)
	}
}

// errNoResponse stands for a handler that has panicked.
var errNoResponse = errors.New("the next handler did not return")

// settle ends what a request holds, when its response has ended: in whatever way.
func (h *Handler) settle(r *http.Request, v *visit, held *spending.Held, rw *relay.Writer, err error) {
	hs := h.holds
	values, status := rw.Cost()
	if status == 0 || status == clientClosed {
		status = statusWithout(err)
	}
	word, cost, fault := spending.Verdict(values, status)
	if fault != nil {
		if requests, due := hs.state.costFaults.Next(hs.now()); due {
			hs.logger.Warn("the upstream's Tollgate-Cost cannot be used; the request counts with what it holds until the balance is read again",
				zap.Int("requests", requests), zap.String("path", originalURL(r).Path), zap.Error(fault))
		}
	}
	settled, err := held.Settle(context.WithoutCancel(r.Context()), word, cost)
	if err != nil {
		if requests, due := hs.state.unwritten.Next(hs.now()); due {
			hs.logger.Error("what a request cost could not be booked yet; retrying", zap.Int("requests", requests), zap.Error(err))
		}
		return
	}
	if settled.OverHold && !held.Amount().IsZero() {
		if requests, due := hs.state.overHolds.Next(hs.now()); due {
			hs.logger.Warn("a request has cost more than it held; raise `reserve`", zap.Int("requests", requests),
				zap.String("path", originalURL(r).Path), zap.Stringer("cost", cost), zap.Stringer("held", held.Amount()))
		}
	}
	if settled.NeedsReading {
		hs.tokens.users.ReadSoon(v.session, hs.tokens.userReader(v.session))
	}
}

// clientClosed is the status that reverse_proxy notes if the client has left.
const clientClosed = 499

// statusWithout is the status that counts for a request without a response. If the upstream
// may have worked on the request, it is 200, so that the hold stays until the balance is
// read: a client that leaves does not get its calls for nothing.
func statusWithout(err error) int {
	if _, failed := errors.AsType[reverseproxy.DialError](err); failed {
		return http.StatusBadGateway
	}
	if answered, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		switch answered.StatusCode {
		case 0, clientClosed, http.StatusBadGateway, http.StatusGatewayTimeout:
		default:
			return answered.StatusCode
		}
	}
	return http.StatusOK
}

// isLow reports whether the response to a page navigation says that the balance is low.
func (h *Handler) isLow(r *http.Request, id *identity.Identity) bool {
	return h.settings.low != nil && id.IsBelow(h.settings.low.Value) && browser.IsNavigation(r)
}

// dryRun is the preference (RFC 7240) of a client that asks whether a request would pass.
const dryRun = "tollgate-dry-run"

// wantsDryRun reports whether a request is a dry run.
func wantsDryRun(header http.Header) bool {
	for _, line := range header["Prefer"] {
		for preference := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(preference, ";")
			name, _, _ = strings.Cut(name, "=")
			if strings.EqualFold(strings.TrimSpace(name), dryRun) {
				return true
			}
		}
	}
	return false
}

// noteDryRun marks the response to a dry run.
func noteDryRun(header http.Header) {
	header.Add("Vary", "Prefer")
	header.Set("Preference-Applied", dryRun)
}

// standing is what a user can spend, for the endpoint userinfo.
type standing struct {
	available *string          // nil if it is not known
	budgets   []budgetStanding // nil if they are not known
}

// budgetStanding is how much of a budget is used.
type budgetStanding struct {
	Budget    string `json:"budget"`
	Per       string `json:"per"`
	Spent     string `json:"spent"`
	Available string `json:"available"`
	ResetsAt  int64  `json:"resets_at"`
}

// standing asks the ledger what a user can spend. It reads the balance if the ledger does not
// know it yet.
func (hs *holds) standing(ctx context.Context, s *session.Session, id *identity.Identity) *standing {
	var found standing
	user, err := hs.store.LedgerUser(ctx, s.User.ID())
	if err != nil {
		hs.unreachable(err)
		return &found
	}
	charge := hs.settings.charge
	result, err := hs.keeper.Look(ctx, user, charge.Ledger)
	if err == nil && !result.Known && charge.Reserve && id.Info.IsAmount && hs.tokens.users.ReadAgain(ctx, s, hs.tokens.userReader(s)) == nil {
		result, err = hs.keeper.Look(ctx, user, charge.Ledger)
	}
	if err != nil {
		hs.unreachable(err)
		return &found
	}
	if result.Known && charge.Reserve {
		available := result.Available.String()
		found.available = &available
	}
	found.budgets = []budgetStanding{}
	for i, use := range result.Budgets {
		left := use.Budget.Limit.Sub(use.Spent).Sub(use.Held)
		if left.Less(spending.Amount{}) {
			left = spending.Amount{}
		}
		found.budgets = append(found.budgets, budgetStanding{
			Budget: charge.Budgets[i].Text, Per: use.Budget.Window.String(), Spent: use.Spent.String(),
			Available: left.String(), ResetsAt: use.ResetsAt.Unix(),
		})
	}
	return &found
}
