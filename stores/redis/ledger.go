package redis

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

const (
	// redisSpending follows the prefix in the names of the ledger's keys. After it come the
	// shelf in braces, and the kind of the key. The braces put all keys of a shelf on one
	// node of a cluster.
	redisSpending = "spending:"
	// shelves is the number of parts of the ledger. Each user belongs to one of them. It
	// must not change while gateways of two versions share a Redis.
	shelves = 64
	// shelfMemory is how long a gateway relies on the number and epoch that it has seen of a
	// shelf. Redis keeps them for a day.
	shelfMemory = 12 * time.Hour
	// renewals is how many holds are renewed at a time. They share a round trip.
	renewals = 64
)

// The scripts of the ledger. Each is atomic, and begins with the State of one user.
var (
	//go:embed ledger/state.lua
	ledgerState string
	//go:embed ledger/admit.lua
	ledgerAdmit string
	//go:embed ledger/settle.lua
	ledgerSettle string
	//go:embed ledger/renew.lua
	ledgerRenew string
	//go:embed ledger/begin.lua
	ledgerBegin string
	//go:embed ledger/end.lua
	ledgerEnd string
)

// Ledger keeps the State of each user in Redis, where several gateways share it. Every call
// is one script, and one round trip.
//
// It detects that Redis has lost data: keys are gone, or are older than what this process
// has seen. A new epoch then begins for the shelf. For one lease nothing is admitted there,
// and every gateway reports its running requests when it renews them. Balances are read
// again after that. A process that has seen nothing yet cannot detect a loss.
//
// Times are those of Redis, so that the clocks of the gateways do not matter.
type Ledger struct {
	client  *Client
	prefix  string
	lease   time.Duration
	now     func() time.Time // nil for the clock of Redis
	scripts struct{ admit, settle, renew, begin, end *rueidis.Lua }
	shelves [shelves]shelf
}

// shelf remembers the newest number and epoch that this process has seen for one part of the
// ledger.
type shelf struct {
	mu     sync.Mutex // guards the fields below
	number int64
	epoch  uint64
	at     time.Time
}

// NewLedger returns a ledger in the Redis of the client. The caller keeps the client open
// while it uses the ledger. now is the ledger's clock. If it is nil, the clock of Redis is.
func NewLedger(client *Client, prefix string, lease time.Duration, now func() time.Time) *Ledger {
	l := &Ledger{client: client, prefix: prefix, lease: lease, now: now}
	script := func(text string) *rueidis.Lua { return rueidis.NewLuaScript(ledgerState + text) }
	l.scripts.admit, l.scripts.settle, l.scripts.renew = script(ledgerAdmit), script(ledgerSettle), script(ledgerRenew)
	l.scripts.begin, l.scripts.end = script(ledgerBegin), script(ledgerEnd)
	return l
}

// Ledger implements records.Store.
func (r *Records) Ledger(lease time.Duration) spending.Ledger {
	return r.Client.ledger(r.Prefix, cmp.Or(lease, spending.DefaultLease))
}

// ledgerKey identifies a ledger of one client.
type ledgerKey struct {
	prefix string
	lease  time.Duration
}

// ledger returns the ledger with this prefix. It lives as long as the client, so that its
// shelves survive a reload of the configuration.
func (c *Client) ledger(prefix string, lease time.Duration) *Ledger {
	l, _ := c.ledgers.LoadOrStore(ledgerKey{prefix, lease}, NewLedger(c, prefix, lease, nil))
	return l.(*Ledger)
}

// Hold keeps the connection open until it is released.
func (l *Ledger) Hold() (release func()) { return l.client.Hold() }

// Lease implements spending.Ledger.
func (l *Ledger) Lease() time.Duration { return l.lease }

// seen returns the newest number and epoch that this process has seen of the shelf. It
// returns zeros if that was long ago: then this process has no running requests there, so
// that a loss of data does not matter.
func (s *shelf) seen(now time.Time) (number int64, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !flight.Within(now.Sub(s.at), shelfMemory) {
		return 0, 0
	}
	return s.number, s.epoch
}

// see notes the newest number of the newest epoch.
func (s *shelf) see(number int64, epoch uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case epoch < s.epoch && flight.Within(now.Sub(s.at), shelfMemory):
		return
	case epoch == s.epoch:
		number = max(number, s.number)
	}
	s.number, s.epoch, s.at = number, epoch, now
}

// reply is the result of a script. number and epoch are the shelf's. wait is how long the
// shelf still waits, in milliseconds.
type reply struct {
	epoch uint64
	wait  int64
	rest  []int64
}

var errLedgerReply = errors.New("redis sent an unexpected reply")

// run runs a script on a user's keys. The reply has at least the given number of values
// behind the head.
func (l *Ledger) run(script *rueidis.Lua, user, doing string, values int, args ...string) (reply, error) {
	h := fnv.New32a()
	h.Write([]byte(user))
	which := h.Sum32() % shelves
	s := &l.shelves[which]
	number, epoch := s.seen(time.Now())
	at := ""
	if l.now != nil {
		at = strconv.FormatInt(l.now().UnixMilli(), 10)
	}
	args = append([]string{at, strconv.FormatInt(number, 10), strconv.FormatUint(epoch, 10), strconv.FormatInt(l.lease.Milliseconds(), 10)}, args...)
	base := l.prefix + redisSpending + "{" + strconv.FormatUint(uint64(which), 10) + "}:"
	keys := []string{base + "shelf", base + "user:" + user, base + "leases:" + user, base + "lapsed:" + user}
	answer, err := l.client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, c, keys, args)
	}).AsIntSlice()
	switch {
	case err != nil:
		return reply{}, l.client.error(doing, err)
	case len(answer) < 3+values:
		return reply{}, fmt.Errorf("%s: %w", doing, errLedgerReply)
	}
	s.see(answer[0], uint64(answer[1]), time.Now())
	return reply{uint64(answer[1]), answer[2], answer[3:]}, nil
}

// Admit implements spending.Ledger.
func (l *Ledger) Admit(_ context.Context, user string, r *spending.Request) (spending.Result, uint64, error) {
	args := append(make([]string, 0, 10+3*len(r.Budgets)), r.ID.String())
	args = appendAmount(appendAmount(args, r.Amount), r.Required)
	args = append(args, flag(r.Reserve), ledgerMilli(r.MaxAge), ledgerMilli(r.RefusalAge), flag(r.PassUnknown), flag(r.Dry))
	for i := range r.Budgets {
		args = appendAmount(append(args, accountField(&r.Budgets[i])), r.Budgets[i].Limit)
	}
	answer, err := l.run(l.scripts.admit, user, "asking the ledger in Redis", 1, args...)
	if err != nil {
		return spending.Result{}, 0, err
	}
	result := spending.Result{Outcome: spending.Outcome(answer.rest[0])}
	if result.Outcome == spending.Unavailable {
		result.RetryAfter = time.Duration(answer.wait) * time.Millisecond
		return result, answer.epoch, nil
	}
	if !readResult(answer.rest[1:], r, &result) {
		return spending.Result{}, 0, fmt.Errorf("asking the ledger in Redis: %w", errLedgerReply)
	}
	return result, answer.epoch, nil
}

// readResult reads what admit.lua returns behind the outcome.
func readResult(n []int64, r *spending.Request, result *spending.Result) bool {
	const fixed, each = 13, 5
	if len(n) < fixed || r.Dry && len(n) != fixed+each*len(r.Budgets) || n[7] > int64(len(r.Budgets)) {
		return false
	}
	result.Known = n[0] == 1
	result.Available, result.Unread = spending.AmountOf(n[1], n[2]), spending.AmountOf(n[4], n[5])
	result.Age = time.Duration(n[3]) * time.Millisecond
	if n[3] < 0 {
		result.Age = math.MaxInt64
	}
	result.InFlight = n[6] == 1
	if n[7] > 0 {
		result.Over = budgetUse(r.Budgets[n[7]-1], n[8:])
	}
	if r.Dry {
		for i, b := range r.Budgets {
			result.Budgets = append(result.Budgets, budgetUse(b, n[fixed+each*i:]))
		}
	}
	return true
}

func budgetUse(b spending.Budget, n []int64) spending.BudgetUse {
	return spending.BudgetUse{Budget: b, Spent: spending.AmountOf(n[0], n[1]), Held: spending.AmountOf(n[2], n[3]), ResetsAt: time.UnixMilli(n[4])}
}

// Settle implements spending.Ledger.
func (l *Ledger) Settle(_ context.Context, user string, t *spending.Settlement) (spending.Settled, error) {
	args := append(make([]string, 0, 7+len(t.Budgets)), t.ID.String(), strconv.FormatUint(t.Epoch, 10))
	args = append(appendAmount(args, t.Amount), strconv.Itoa(int(t.Word)))
	args = appendAccounts(appendAmount(args, t.Cost), t.Budgets)
	answer, err := l.run(l.scripts.settle, user, "settling in Redis", 3, args...)
	if err != nil {
		return spending.Settled{}, err
	}
	return spending.Settled{Repeated: answer.rest[0] == 1, OverHold: answer.rest[1] == 1, NeedsReading: answer.rest[2] == 1}, nil
}

// Renew implements spending.Ledger. An error of one hold is the error of all of them, after
// every hold was tried.
func (l *Ledger) Renew(_ context.Context, holds []spending.Hold, restore bool) ([]uint64, error) {
	epochs, errs := make([]uint64, len(holds)), make([]error, len(holds))
	slots := make(chan struct{}, renewals)
	var renewing sync.WaitGroup
	for i := range holds {
		slots <- struct{}{}
		renewing.Go(func() {
			defer func() { <-slots }()
			epochs[i], errs[i] = l.renew(&holds[i], restore)
		})
	}
	renewing.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return epochs, nil
}

func (l *Ledger) renew(h *spending.Hold, restore bool) (epoch uint64, err error) {
	args := append(appendAmount([]string{h.ID.String()}, h.Amount), flag(restore))
	answer, err := l.run(l.scripts.renew, h.User, "renewing a hold in Redis", 1, appendAccounts(args, h.Budgets)...)
	if err != nil || answer.rest[0] == 0 {
		return 0, err
	}
	return answer.epoch, nil
}

// BeginReading implements spending.Ledger. While the shelf waits, the ticket has the number
// 0, with which EndReading does nothing.
func (l *Ledger) BeginReading(_ context.Context, user string) (spending.Ticket, error) {
	answer, err := l.run(l.scripts.begin, user, "noting a reading in Redis", 2)
	if err != nil {
		return spending.Ticket{}, err
	}
	return spending.Ticket{Epoch: answer.epoch, Number: uint64(answer.rest[0]), At: answer.rest[1]}, nil
}

// EndReading implements spending.Ledger.
func (l *Ledger) EndReading(_ context.Context, user string, t spending.Ticket, b spending.Balance) error {
	if t.Number == 0 {
		return nil
	}
	args := []string{strconv.FormatUint(t.Epoch, 10), strconv.FormatUint(t.Number, 10), strconv.FormatInt(t.At, 10), flag(b.Known)}
	_, err := l.run(l.scripts.end, user, "noting a balance in Redis", 0, appendAmount(args, b.Amount)...)
	return err
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func ledgerMilli(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func appendAmount(args []string, a spending.Amount) []string {
	whole, parts := a.Limbs()
	return append(args, strconv.FormatInt(whole, 10), strconv.FormatInt(parts, 10))
}

// accountField is the field in which the account of a budget is kept. A key has no spaces.
func accountField(b *spending.Budget) string {
	return "budget:" + string([]byte{byte(b.Window), ':'}) + b.Key
}

func appendAccounts(args []string, budgets []spending.Budget) []string {
	for i := range budgets {
		args = append(args, accountField(&budgets[i]))
	}
	return args
}

// Interface guard.
var _ spending.Ledger = (*Ledger)(nil)
