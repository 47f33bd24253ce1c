package charging

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/rare"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// cutPause is how long an upstream may take to notice that a request was cut off, and until
// the provider has booked what it cost. A reading of the balance before that could miss it,
// and a client could cut off one unpaid request after the other.
const cutPause = 15 * time.Second

// Ledgers has the ledgers of this process and the Keeper of the ledger in use. It outlives a
// reload.
type Ledgers struct {
	// CutPause is how long a request that was cut off goes on holding its amount. NewLedgers
	// sets it.
	CutPause time.Duration

	now func() time.Time
	// logger returns the newest logger of the site, or nil if the site has no handler.
	logger  func() *zap.Logger
	metrics *metrics.Set

	mu sync.Mutex // guards locals and keeper
	// locals are the ledgers of this process, by the endpoint of the users' balances.
	locals map[string]*spending.Local
	keeper *keeper

	// These limit log lines.
	costFaults, overHolds, lateHolds, unwritten rare.Line
}

// keeper is the Keeper of a site's ledger. It outlives a reload, unless the reload changes the
// ledger.
type keeper struct {
	ledger spending.Ledger
	*spending.Keeper
}

// NewLedgers returns the ledgers of a site. logger returns the newest logger of the site, or
// nil if the site has no handler.
func NewLedgers(now func() time.Time, logger func() *zap.Logger, set *metrics.Set) *Ledgers {
	return &Ledgers{CutPause: cutPause, now: now, logger: logger, metrics: set, locals: make(map[string]*spending.Local)}
}

// localAt returns the ledger of this process for the users of one user information endpoint.
func (l *Ledgers) localAt(endpoint string) *spending.Local {
	l.mu.Lock()
	defer l.mu.Unlock()
	local, ok := l.locals[endpoint]
	if !ok {
		local = spending.NewLocal(l.now)
		l.locals[endpoint] = local
	}
	return local
}

// Running returns how many requests hold an amount.
func (l *Ledgers) Running() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keeper == nil {
		return 0
	}
	return l.keeper.Running()
}

// keeperOf returns the Keeper of a ledger. The Keeper of the previous configuration goes on if
// the ledger is the same.
func (l *Ledgers) keeperOf(ledger spending.Ledger) *spending.Keeper {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keeper == nil || l.keeper.ledger != ledger {
		l.keeper = &keeper{ledger, spending.NewKeeper(ledger, l.logLate)}
	}
	return l.keeper.Keeper
}

// logLate logs that a ledger accepted a settlement only on a retry.
func (l *Ledgers) logLate(held spending.Hold, settled spending.Settled) {
	if settled.OverHold && !held.Amount.IsZero() {
		l.metrics.CountCostOverHold()
	}
	requests, due := l.lateHolds.Next(l.now())
	if !due {
		return
	}
	if logger := l.logger(); logger != nil {
		logger.Info("what a request cost was booked late: the ledger could not be reached when it ended",
			zap.Int("requests", requests), zap.Bool("over_hold", settled.OverHold))
	}
}
