// Package spending keeps a user from spending more than there is, at any number of
// concurrent requests.
//
// A request is admitted if the user's available money covers it, and then holds an amount
// until it is settled:
//
//	available = balance of the newest reading
//	          - what running requests hold
//	          - what was settled after that reading began
//
// When the request ends, its cost takes the place of its hold. The cost counts until a
// reading of the balance that began after the settlement has come back, because only such
// a reading is sure to include it.
//
// Order is by numbers that the State gives out, never by clocks. A reading takes the next
// number as its Ticket when it begins. Its result drops the costs that were settled before
// that number was taken, and no others. So a State needs one sum for each reading under
// way, and none for each request. Clocks only decide when a lease ends, how old a balance
// is, and in which window a budget counts.
//
// A State is a pure value: no I/O, no clock, no lock. A Ledger keeps a State for each user:
// Local in this process, and the ledgers of stores/redis and stores/storage for several
// gateways. The scripts of stores/redis repeat State step by step, and a test compares
// them. A Keeper is what the handler uses: it keeps the leases of this process's requests,
// and settles each of them exactly once.
//
// The package does not read balances, and does not know why a request costs money. Begin
// with State.Admit, and with Keeper.Admit for its use.
package spending

import (
	"context"
	"encoding/hex"
	"time"
)

// ID identifies one request. It is unique in all gateways.
type ID [16]byte

// String returns the ID in hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Request is a request that asks for admission.
type Request struct {
	// ID is set by the Keeper. A repeated Admit with the same ID takes one hold.
	ID ID
	// Amount is what the request holds until it is settled. It may be zero.
	Amount Amount
	// Reserve is true if the available money must cover Amount and Required. Without it only
	// budgets count.
	Reserve bool
	// Required is the least available money of a user who may pass. It may be more than
	// Amount, and is not held.
	Required Amount
	// MaxAge is the maximum age of a balance that decides. If it is older, or unknown, the
	// outcome is NeedsReading. Ages count from the begin of a reading.
	MaxAge time.Duration
	// RefusalAge is the maximum age of a balance that refuses.
	RefusalAge time.Duration
	// PassUnknown admits the request if no balance of MaxAge is known. Set it after a
	// reading has failed, and if the configuration says `on_unknown allow`.
	PassUnknown bool
	// Budgets are the budgets that count for the request.
	Budgets []Budget
	// Dry is true if the request takes no hold. The Result then has Budgets.
	Dry bool
}

// need is the available money that admits the request.
func (r *Request) need() Amount {
	if r.Amount.Less(r.Required) {
		return r.Required
	}
	return r.Amount
}

// Outcome is the answer to a Request.
type Outcome int

const (
	// Admitted means that the request may pass, and holds its amount.
	Admitted Outcome = iota + 1
	// NeedsReading means that only a reading of the balance that begins now can tell.
	NeedsReading
	// Insufficient means that the available money does not cover what the request needs.
	Insufficient
	// OverBudget means that a budget does not cover the amount.
	OverBudget
	// Busy means that the user has maxHolds requests running.
	Busy
	// Unavailable means that the ledger has lost its data, and waits until every gateway
	// has reported its running requests.
	Unavailable
)

// Result is the Outcome, and its reasons.
type Result struct {
	Outcome Outcome
	// Known is true if there is a balance. Available and Age then belong to it.
	Known     bool
	Available Amount
	Age       time.Duration
	// Unread is what was settled after the newest reading began. The balance may already
	// include it.
	Unread Amount
	// InFlight is true if the request would pass if the running requests cost nothing. It
	// is worth asking again when one of them has ended.
	InFlight bool
	// Over is the budget that is used up, if the Outcome is OverBudget. Of several it is
	// the one that resets last.
	Over BudgetUse
	// Budgets has each budget of a dry Request.
	Budgets []BudgetUse
	// RetryAfter is set if the Outcome is Unavailable.
	RetryAfter time.Duration
}

// BudgetUse says how much of a budget is used.
type BudgetUse struct {
	Budget   Budget
	Spent    Amount
	Held     Amount
	ResetsAt time.Time
}

// Word is what an upstream's response says about the cost.
type Word int

const (
	// Free means that the request cost nothing: the upstream said nothing, and did not
	// serve the request.
	Free Word = iota
	// Unsaid means that the request may have cost its whole hold. The hold stays until a
	// reading that begins after the settlement.
	Unsaid
	// Costs means that the upstream said the cost.
	Costs
)

// Verdict says what the end of a request means. values are those of Tollgate-Cost in the
// header and the trailer of the response, and status is its status code, or 0 if there was
// no response. A value that cannot be used is an error, a fault of the upstream: the
// caller then assumes a cost, or keeps the hold until a reading.
func Verdict(values []string, status int) (word Word, cost Amount, err error) {
	cost, told, err := parseCost(values)
	switch {
	case err != nil:
		return Unsaid, Amount{}, err
	case told:
		return Costs, cost, nil
	case status > 0 && status < 400:
		return Unsaid, Amount{}, nil
	default:
		return Free, Amount{}, nil
	}
}

// Settlement ends a request.
type Settlement struct {
	ID ID
	// Amount and Budgets are those of the Request.
	Amount  Amount
	Budgets []Budget
	Word    Word
	Cost    Amount // if Word is Costs
	// Epoch is the ledger's epoch in which the hold was last known.
	Epoch uint64
}

// Settled is the result of a Settlement.
type Settled struct {
	// Repeated is true if the request was settled before. Nothing was booked.
	Repeated bool
	// OverHold is true if the cost was above the amount held. It was booked in full.
	OverHold bool
	// NeedsReading is true if something was booked that counts until the next reading.
	NeedsReading bool
}

// Ticket marks the begin of a reading of the balance.
type Ticket struct {
	Epoch, Number uint64
	At            int64 // in Unix milliseconds of the ledger's clock
}

// Balance is the result of a reading. Known is false if it is no amount.
type Balance struct {
	Amount Amount
	Known  bool
}

// Hold is a hold that a process renews.
type Hold struct {
	User    string
	ID      ID
	Amount  Amount
	Budgets []Budget
}

// Ledger keeps the State of every user. The user is any text that names one; a ledger
// outside of this process should not see the provider's id. All methods may be called
// concurrently, and may be repeated if their result is lost.
//
// An error means that the ledger cannot read or write now. It never means that a request
// may pass.
type Ledger interface {
	// Admit decides about a request. The caller puts the epoch into its Settlement.
	Admit(ctx context.Context, user string, r *Request) (result Result, epoch uint64, err error)

	// Settle ends a request.
	Settle(ctx context.Context, user string, s *Settlement) (Settled, error)

	// Renew restarts the leases of holds. The result has one epoch for each hold. It is 0
	// if the ledger does not know the hold: it was settled, or the ledger lost it. With
	// restore, Renew makes the holds that the ledger does not know.
	Renew(ctx context.Context, holds []Hold, restore bool) (epochs []uint64, err error)

	// BeginReading is called directly before a reading of the balance begins.
	BeginReading(ctx context.Context, user string) (Ticket, error)

	// EndReading takes the result of a reading. It ignores a reading that began before the
	// newest one that has come back. If the reading failed, there is nothing to call.
	EndReading(ctx context.Context, user string, t Ticket, b Balance) error

	// Lease is how long a hold lives without being renewed. It is 0 if holds live until
	// they are settled.
	Lease() time.Duration
}

const (
	// maxHolds is how many requests of one user may run at a time.
	maxHolds = 4096
	// DefaultLease is the usual lease: how long the hold of a gateway that has died is
	// kept. It is renewed every third of that.
	DefaultLease = 15 * time.Second
)
