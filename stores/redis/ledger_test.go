package redis_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/spending"
	"github.com/caddy-tollgate/tollgate/stores/redis"
)

const testLease = 15 * time.Second

// twin does the same to a State in Go and to one in Redis.
type twin struct {
	t       *testing.T
	r       *rand.Rand
	now     time.Time
	user    string
	state   *spending.State
	ledger  spending.Ledger
	entered bool
	epoch   uint64
	ids     []spending.ID
	tickets []spending.Ticket
	log     []string
}

func (w *twin) milli() int64 { return w.now.UnixMilli() }

func (w *twin) amount() spending.Amount {
	switch w.r.IntN(8) {
	case 0:
		return spending.Amount{}
	case 1:
		return spending.AmountOf(0, w.r.Int64N(3))
	case 2:
		return spending.AmountOf(w.r.Int64N(100_000_000_000), 999_999_999_999)
	default:
		return spending.AmountOf(w.r.Int64N(5), w.r.Int64N(1_000_000_000_000))
	}
}

// huge is an amount up to the largest one.
func (w *twin) huge() spending.Amount {
	if w.r.IntN(8) == 0 {
		return spending.AmountOf(999_999_999_999_999, 999_999_999_999)
	}
	return w.amount()
}

func (w *twin) budgets() (list []spending.Budget) {
	all := []spending.Budget{{Key: "api", Window: spending.Hour}, {Key: "api", Window: spending.Day}, {Key: "x-1_2.3/4", Window: spending.Month}}
	for _, b := range all {
		if w.r.IntN(2) == 0 {
			b.Limit = w.amount()
			list = append(list, b)
		}
	}
	return list
}

func (w *twin) id() spending.ID {
	if len(w.ids) > 0 && w.r.IntN(2) == 0 {
		return w.ids[w.r.IntN(len(w.ids))]
	}
	id := spending.ID{byte(len(w.ids)), 0xff}
	w.ids = append(w.ids, id)
	return id
}

func (w *twin) compare(what string, ofState, ofRedis any, err error) {
	w.t.Helper()
	w.log = append(w.log, fmt.Sprintf("%s %s: %+v", w.now.UTC().Format(time.RFC3339Nano), what, ofState))
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	if !reflect.DeepEqual(ofState, ofRedis) {
		w.t.Fatalf("%s:\nState %+v\nRedis %+v\n%s", what, ofState, ofRedis, strings.Join(w.log, "\n"))
	}
}

func (w *twin) step() {
	w.t.Helper()
	ctx := w.t.Context()
	switch w.r.IntN(40) {
	case 0: // past some leases
		w.now = w.now.Add(testLease - time.Second)
	case 1: // into another window
		w.now = w.now.Add(time.Duration(w.r.IntN(1000)) * time.Hour)
	case 2: // back
		w.now = w.now.Add(-time.Duration(w.r.IntN(100)) * time.Minute)
	case 3, 4: // around the slack of clocks
		w.now = w.now.Add(-time.Duration(w.r.IntN(90)) * time.Second)
	case 5: // around the time for which lapsed holds are remembered
		w.now = w.now.Add(time.Duration(w.r.IntN(90)) * time.Minute)
	default:
		w.now = w.now.Add(time.Duration(w.r.IntN(2000)) * time.Millisecond)
	}
	switch n := w.r.IntN(10); {
	case n < 4:
		r := &spending.Request{
			ID: w.id(), Amount: w.amount(), Required: w.amount(), Budgets: w.budgets(), Reserve: w.r.IntN(3) > 0,
			MaxAge: time.Duration(w.r.IntN(60)) * time.Second, RefusalAge: time.Duration(w.r.IntN(3)) * time.Second,
			PassUnknown: w.r.IntN(5) == 0, Dry: w.r.IntN(5) == 0,
		}
		ofRedis, epoch, err := w.ledger.Admit(ctx, w.user, r)
		w.enter(epoch)
		w.compare(fmt.Sprintf("admit %+v", *r), w.state.Admit(w.milli(), r, testLease), ofRedis, err)
	case n < 7:
		s := &spending.Settlement{ID: w.id(), Amount: w.amount(), Budgets: w.budgets(), Word: spending.Word(w.r.IntN(3)), Cost: w.huge(), Epoch: 1 << 50}
		switch w.r.IntN(10) {
		case 0:
			s.Epoch = 1 // of an epoch that was lost
		case 1, 2:
			s.Epoch = w.epoch
		}
		if w.entered {
			ofRedis, err := w.ledger.Settle(ctx, w.user, s)
			w.compare(fmt.Sprintf("settle %+v", *s), w.state.Settle(w.milli(), s), ofRedis, err)
		}
	case n < 8 && w.entered:
		h := spending.Hold{User: w.user, ID: w.id(), Amount: w.amount(), Budgets: w.budgets()}
		restore := w.r.IntN(4) == 0
		epochs, err := w.ledger.Renew(ctx, []spending.Hold{h}, restore)
		w.compare(fmt.Sprintf("renew %+v", h), w.state.Renew(w.milli(), &h, testLease, restore), err == nil && epochs[0] > 0, err)
	case n < 9:
		ticket, err := w.ledger.BeginReading(ctx, w.user)
		w.enter(ticket.Epoch)
		w.compare("begin", w.state.BeginReading(w.milli()), ticket, err)
		w.tickets = append(w.tickets, ticket)
	case len(w.tickets) > 0:
		i := w.r.IntN(len(w.tickets))
		ticket := w.tickets[i]
		if w.r.IntN(3) > 0 { // else the same result comes twice
			w.tickets = append(w.tickets[:i:i], w.tickets[i+1:]...)
		}
		b := spending.Balance{Amount: w.huge(), Known: w.r.IntN(10) > 0}
		if w.r.IntN(4) == 0 {
			b.Amount = spending.Amount{}.Sub(b.Amount)
		}
		w.state.EndReading(w.milli(), ticket, b)
		w.compare(fmt.Sprintf("end %+v %+v", ticket, b), nil, nil, w.ledger.EndReading(ctx, w.user, ticket, b))
	}
}

func (w *twin) enter(epoch uint64) {
	if !w.entered {
		w.state, w.entered = spending.NewState(w.milli()), true
	}
	w.state.Enter(epoch)
	w.epoch = epoch
}

func TestScriptsEqualState(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 2))
	w := &twin{t: t, r: r}
	w.ledger = s.gateway(testLease, func() time.Time { return w.now })
	for history := range 150 {
		w.now = time.Now().AddDate(0, 1, 0) // keys end by the clock of Redis, which must not be ahead
		w.user, w.state, w.entered = fmt.Sprint("user", history), nil, false
		w.ids, w.tickets, w.log = nil, nil, []string{fmt.Sprint("seed ", seed)}
		for range 100 {
			w.step()
		}
	}
}

func TestLedgerOutlivesAReload(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	client := redis.NewClient(redis.Options{Addresses: []string{s.Address()}}, 0)
	t.Cleanup(client.Release)
	before, after := &redis.Records{Client: client, Prefix: "a:"}, &redis.Records{Client: client, Prefix: "a:"}
	if before.Ledger(0) != after.Ledger(0) {
		t.Error("another configuration with the same connection has another ledger")
	}
	if other := (&redis.Records{Client: client, Prefix: "b:"}); other.Ledger(0) == before.Ledger(0) {
		t.Error("sites with different prefixes share a ledger")
	}
}
