// Package charging holds the money of running requests: it asks the ledger whether a request
// can be paid while others of the same user run, reads the user's balance if the ledger needs
// that, and settles each request when its response has ended.
//
// It also writes the problem documents of a 402, in problems.go.
//
// It does not compute with amounts and keeps no ledger: internal/spending and the stores do.
// It does not decide which rules apply: internal/policy does. Begin with Holds.Admit.
package charging

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/policy"
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
	uncheckedRetry = 5 * time.Second
)

// Terms are the settings of a site that decide who can pay.
type Terms struct {
	// Endpoint is the user information endpoint. The same id at another endpoint may be
	// another user.
	Endpoint string
	// Charge is the Charge of all rules together.
	Charge      *policy.Charge
	Ages        account.Ages
	PassUnknown bool // whether a request passes while the balance is unknown
}

// Holds admits requests that may cost money, and settles them when they have ended.
type Holds struct {
	terms   Terms
	store   session.Store
	ledgers *Ledgers
	keeper  *spending.Keeper
	users   *account.Users
	reader  func(*session.Session) account.ReadFunc
	now     func() time.Time
	logger  *zap.Logger
}

// New returns the Holds of one handler. reader returns the function that reads the balance of
// a session's user.
func New(terms Terms, store session.Store, ledgers *Ledgers, users *account.Users, reader func(*session.Session) account.ReadFunc, logger *zap.Logger) *Holds {
	return &Holds{
		terms: terms, store: store, ledgers: ledgers, keeper: ledgers.keeperOf(store.Ledger(ledgers.localAt(terms.Endpoint))),
		users: users, reader: reader, now: ledgers.now, logger: logger,
	}
}

// NeedOf returns the balance that a user needs if the rules have a reserve. For an ordinary
// request it is nil, because the ledger decides. A stream goes on until nothing is left,
// because its own spending may take the balance below what the rule requires.
func NeedOf(streaming, passUnknown bool) *account.Need {
	if !streaming {
		return nil
	}
	least, _ := decimal.Parse("0.000000000001") // the smallest amount that the ledger counts
	return &account.Need{
		Amount:      &account.Amount{Text: least.String(), Value: least, Near: least},
		PassUnknown: passUnknown,
	}
}

var errNoAmount = errors.New("the provider's balance is not an amount")

// Admit asks the ledger whether a request that meets the rules can be paid. It reads the
// balance if the ledger needs that, and updates id with it. With dry it takes no hold.
func (hs *Holds) Admit(ctx context.Context, s *session.Session, id *identity.Identity, charge *policy.Charge, dry bool) Answer {
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
			MaxAge: hs.terms.Ages.MaxAge, RefusalAge: account.LackingAge, Dry: dry,
		},
		MaxStale:    hs.terms.Ages.MaxStale,
		PassUnknown: hs.terms.PassUnknown && !id.Owes(),
	}
	ask.Reread = func(ctx context.Context) error {
		err := hs.users.ReadAgain(ctx, s, hs.reader(s))
		id.View = hs.users.Latest(s, hs.terms.Ages)
		ask.PassUnknown = hs.terms.PassUnknown && !id.Owes()
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
		return Answer{Verdict: Admitted, Held: held}
	case result.Outcome == spending.Insufficient, noAmount && result.Outcome == spending.NeedsReading:
		return lacking(id, charge, result, noAmount)
	case result.Outcome == spending.OverBudget:
		return overBudget(charge, result.Over, hs.now())
	case result.Outcome == spending.Unavailable:
		return Answer{Verdict: Unchecked, RetryAfter: result.RetryAfter}
	case result.Outcome == spending.Busy:
		return Answer{Verdict: Unchecked, RetryAfter: busyRetry}
	default:
		return Answer{Verdict: Unchecked, RetryAfter: uncheckedRetry}
	}
}

// unreachable returns the answer if the ledger cannot be reached. The request never passes.
func (hs *Holds) unreachable(err error) Answer {
	if requests, due := hs.ledgers.unwritten.Next(hs.now()); due {
		hs.logger.Error("the ledger of what users spend cannot be reached; requests that need it get 503", zap.Int("requests", requests), zap.Error(err))
	}
	return Answer{Verdict: Unchecked, RetryAfter: uncheckedRetry, Cause: cause.StoreUnavailable}
}

// NoteReading tells the ledger that a reading of a user's balance begins now. The caller calls
// end with the result.
func (hs *Holds) NoteReading(ctx context.Context, s *session.Session) (end func(context.Context, *oauth.UserInfo)) {
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
