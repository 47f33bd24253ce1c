package spending

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxReadings is how many readings one request waits for. A second one is needed if a
	// request of the same user was settled while the first was under way.
	maxReadings = 8
	// maxQueued is how many settlements wait for a ledger that cannot be reached.
	maxQueued = 100_000
	// maxFailures is how many of them are tried in a row while the ledger takes none.
	maxFailures = 8
	// retryFor is how long they wait. A ledger forgets lapsed holds after that.
	retryFor = time.Hour
)

// Keeper is this process's side of a ledger. It asks for admission, reads the balance where
// the ledger wants that, renews the leases of the requests that are admitted, and settles
// each of them exactly once, also if the ledger cannot be reached at that time. It should
// outlive a reload of the configuration together with its ledger.
//
// Nothing has to be closed: its goroutine runs only while there are leases to renew or
// settlements to repeat.
type Keeper struct {
	ledger  Ledger
	late    func(Hold, Settled)
	gateway [8]byte
	number  atomic.Uint64
	running atomic.Int64
	lines   *lines

	// settling is held for reading by each settlement on its way, and for writing while
	// lost holds are restored. A hold that was just settled must not be restored.
	settling sync.RWMutex

	mu     sync.Mutex // guards the fields below
	leased map[ID]*Held
	queue  []queued
	active bool // whether the goroutine runs
}

// queued is a settlement that the ledger has not taken yet.
type queued struct {
	hold       Hold
	settlement Settlement
	since      time.Time
}

// NewKeeper returns a Keeper for a ledger. late, if it is not nil, is called with each
// settlement that the ledger took only when it was repeated.
func NewKeeper(ledger Ledger, late func(Hold, Settled)) *Keeper {
	k := &Keeper{ledger: ledger, late: late, lines: newLines(), leased: map[ID]*Held{}}
	rand.Read(k.gateway[:]) // never fails: the runtime ends the program instead
	return k
}

// Running is how many admitted requests of this process are not settled.
func (k *Keeper) Running() int { return int(k.running.Load()) }

// Ask is a request, and what may be done to decide about it.
type Ask struct {
	// User names the user in the ledger.
	User string
	// Request is the request. Its ID and PassUnknown are set by the Keeper.
	Request Request
	// Reread reads the balance, and returns after a reading that began after the call has
	// come back. The reading calls BeginReading. A nil Reread is one that always fails.
	Reread func(context.Context) error
	// MaxStale is how old a balance may be that decides if Reread fails.
	MaxStale time.Duration
	// PassUnknown admits the request if Reread fails and no balance of MaxStale is known.
	PassUnknown bool
}

// Admit decides about a request. held is nil if the request is dry or the outcome is
// not Admitted. The caller settles held when the request has ended.
//
// If the outcome is NeedsReading, no reading came back in time, and it is unknown whether the
// money is there. If err is not nil, the ledger cannot be reached. In both cases, and with Busy
// and Unavailable, the caller answers 503.
func (k *Keeper) Admit(ctx context.Context, ask *Ask) (held *Held, result Result, err error) {
	h := &Held{keeper: k, user: ask.User, request: ask.Request}
	k.newID(&h.request.ID)
	if !h.request.Reserve || !k.lines.exists(ask.User) {
		held, result, err = k.try(ctx, h)
		if err != nil || result.Outcome != NeedsReading {
			return held, result, err
		}
	}
	if err := k.lines.enter(ctx, ask.User); err != nil {
		result.Outcome = NeedsReading
		return nil, result, nil
	}
	defer k.lines.leave(ask.User)
	return k.tryWithReadings(ctx, ask, h)
}

// Look returns what a user can spend, without a hold and without a reading. Ignore its
// Outcome.
func (k *Keeper) Look(ctx context.Context, user string, budgets []Budget) (Result, error) {
	result, _, err := k.ledger.Admit(ctx, user, &Request{Reserve: true, PassUnknown: true, Budgets: budgets, Dry: true})
	return result, err
}

// tryWithReadings asks the ledger, and reads the balance as often as the ledger wants it. A
// reading that began after the request came is new enough, however long it takes.
func (k *Keeper) tryWithReadings(ctx context.Context, ask *Ask, h *Held) (held *Held, result Result, err error) {
	r, begun := &h.request, time.Now()
	for range maxReadings {
		held, result, err = k.try(ctx, h)
		if err != nil || result.Outcome != NeedsReading {
			return held, result, err
		}
		if ask.Reread == nil || ctx.Err() != nil || ask.Reread(ctx) != nil {
			break
		}
		r.MaxAge = ask.Request.MaxAge + time.Since(begun)
		r.RefusalAge = ask.Request.RefusalAge + time.Since(begun)
	}
	r.MaxAge, r.PassUnknown = max(r.MaxAge, ask.MaxStale), ask.PassUnknown
	held, result, err = k.try(ctx, h)
	if err == nil && result.Outcome == NeedsReading && result.Known && result.Age <= r.MaxAge && result.Available.Add(result.Unread).Less(r.need()) {
		result.Outcome = Insufficient // whatever the balance includes already
	}
	return held, result, err
}

func (k *Keeper) newID(id *ID) {
	copy(id[:], k.gateway[:])
	binary.BigEndian.PutUint64(id[8:], k.number.Add(1))
}

// try asks the ledger once. It returns h if the request is admitted.
func (k *Keeper) try(ctx context.Context, h *Held) (*Held, Result, error) {
	r := &h.request
	result, epoch, err := k.ledger.Admit(ctx, h.user, r)
	switch {
	case err != nil:
		if !r.Dry {
			// The ledger may have taken the hold all the same.
			k.enqueue(h.hold(), Settlement{ID: r.ID, Epoch: epochNever})
		}
		return nil, Result{}, err
	case result.Outcome != Admitted || r.Dry:
		return nil, result, nil
	}
	h.epoch.Store(epoch)
	k.running.Add(1)
	if k.ledger.Lease() > 0 {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.leased[r.ID] = h
		k.start()
	}
	return h, result, nil
}

// epochNever is the epoch of a hold that the ledger may not know. If it does not know the
// hold, its settlement books nothing.
const epochNever = 1<<53 - 1

// BeginReading notes that a reading of the user's balance begins now. The caller calls end
// with its result, and does not call it if the reading failed. If the ledger cannot be
// reached the result is not noted, and the next request that needs one asks for another.
func (k *Keeper) BeginReading(ctx context.Context, user string) (end func(context.Context, Balance)) {
	ticket, err := k.ledger.BeginReading(ctx, user)
	return func(ctx context.Context, b Balance) {
		if err == nil {
			_ = k.ledger.EndReading(ctx, user, ticket, b) // see above
		}
	}
}

// Held is an admitted request.
type Held struct {
	keeper  *Keeper
	user    string
	request Request
	settled Settlement
	epoch   atomic.Uint64
	done    atomic.Bool
}

// Amount is what the request holds.
func (h *Held) Amount() Amount { return h.request.Amount }

func (h *Held) hold() Hold {
	return Hold{User: h.user, ID: h.request.ID, Amount: h.request.Amount, Budgets: h.request.Budgets}
}

// Settle ends the request. Only the first call counts; every other one returns Repeated. An
// error means that the ledger cannot be reached. The Keeper then repeats the settlement
// until the ledger takes it.
func (h *Held) Settle(ctx context.Context, word Word, cost Amount) (Settled, error) {
	if !h.done.CompareAndSwap(false, true) {
		return Settled{Repeated: true}, nil
	}
	k, r := h.keeper, &h.request
	k.running.Add(-1)
	if k.ledger.Lease() > 0 {
		k.mu.Lock()
		delete(k.leased, r.ID)
		k.mu.Unlock()
	}
	k.settling.RLock()
	h.settled = Settlement{ID: r.ID, Amount: r.Amount, Budgets: r.Budgets, Word: word, Cost: cost, Epoch: h.epoch.Load()}
	settled, err := k.ledger.Settle(ctx, h.user, &h.settled)
	k.settling.RUnlock()
	if err != nil {
		k.enqueue(h.hold(), h.settled)
	}
	return settled, err
}

// enqueue keeps a settlement that the ledger did not accept. If there are too many, the oldest
// is dropped: its hold then ends with its lease, and its amount counts until the next reading.
func (k *Keeper) enqueue(h Hold, t Settlement) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) >= maxQueued {
		k.queue = k.queue[1:]
	}
	k.queue = append(k.queue, queued{h, t, time.Now()})
	k.start()
}

// start starts the goroutine, unless it runs. The caller holds mu.
func (k *Keeper) start() {
	if k.active {
		return
	}
	k.active = true
	release := func() {}
	if holder, ok := k.ledger.(interface{ Hold() (release func()) }); ok {
		release = holder.Hold()
	}
	go k.keep(release)
}

// keep renews leases and repeats settlements. It ends when there are none.
func (k *Keeper) keep(release func()) {
	defer release()
	pause := k.ledger.Lease() / 3
	if pause == 0 {
		pause = time.Second
	}
	for {
		time.Sleep(pause)
		if pause = k.ledger.Lease() / 3; k.renew(context.Background()) != nil || pause == 0 {
			pause = time.Second
		}
		k.Flush(context.Background())
		if k.isDone() {
			return
		}
	}
}

func (k *Keeper) isDone() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.active = len(k.leased) > 0 || len(k.queue) > 0
	return !k.active
}

// renew restarts the leases of all running requests. If the ledger does not know the hold of
// a running request, it has lost the hold.
func (k *Keeper) renew(ctx context.Context) error {
	held := k.leasedNow()
	epochs, err := k.renewThese(ctx, held, false)
	if err != nil {
		return err
	}
	var lost []*Held
	for i, epoch := range epochs {
		if epoch == 0 {
			lost = append(lost, held[i])
		} else {
			held[i].epoch.Store(epoch)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return k.restore(ctx, lost)
}

func (k *Keeper) leasedNow() []*Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	held := make([]*Held, 0, len(k.leased))
	for _, h := range k.leased {
		held = append(held, h)
	}
	return held
}

func (k *Keeper) renewThese(ctx context.Context, held []*Held, restore bool) ([]uint64, error) {
	if len(held) == 0 {
		return nil, nil
	}
	holds := make([]Hold, len(held))
	for i, h := range held {
		holds[i] = h.hold()
	}
	return k.ledger.Renew(ctx, holds, restore)
}

// restore adds lost holds to the ledger again if their requests still run. Settlements wait
// meanwhile.
func (k *Keeper) restore(ctx context.Context, lost []*Held) error {
	k.settling.Lock()
	defer k.settling.Unlock()
	running := lost[:0]
	for _, h := range lost {
		if !h.done.Load() {
			running = append(running, h)
		}
	}
	epochs, err := k.renewThese(ctx, running, true)
	if err != nil {
		return err
	}
	for i, epoch := range epochs {
		running[i].epoch.Store(epoch)
	}
	return nil
}

// Flush retries the settlements that the ledger did not accept. One that fails again goes to
// the end, so that it does not block the others: the State of one user may be damaged.
func (k *Keeper) Flush(ctx context.Context) {
	k.mu.Lock()
	waiting := len(k.queue)
	k.mu.Unlock()
	for failed := 0; waiting > 0 && failed < maxFailures; waiting-- {
		k.mu.Lock()
		if len(k.queue) == 0 {
			k.mu.Unlock()
			return
		}
		next := k.queue[0]
		k.queue = k.queue[1:]
		k.mu.Unlock()
		if !k.repeat(ctx, next) {
			failed++
		}
	}
}

// repeat tries a settlement again. It returns false if the ledger does not take it.
func (k *Keeper) repeat(ctx context.Context, q queued) bool {
	settled, err := k.ledger.Settle(ctx, q.hold.User, &q.settlement)
	if err == nil {
		if k.late != nil && q.settlement.Epoch != epochNever {
			k.late(q.hold, settled)
		}
		return true
	}
	if time.Since(q.since) < retryFor {
		k.mu.Lock()
		k.queue = append(k.queue, q)
		k.mu.Unlock()
	}
	return false
}
