package spending

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// model is a provider with one user's money, and everything that may happen between it and
// a State. Its amounts are plain integers, of a millionth of a unit each.
type model struct {
	r       *rand.Rand
	now     int64
	money   int64 // at the provider
	state   *State
	epoch   uint64
	nextID  uint64
	running []*call
	// refusalAge is how old a balance may be that refuses. If it is not 0 there are no
	// top-ups, which such a refusal may have missed.
	refusalAge time.Duration
	snapshot   []byte  // an older State
	gone       []*call // settled, or dead: they may be settled again
	reading    []*read
	log        []string
	fault      string
}

type call struct {
	id            ID
	amount, cost  int64
	charged, late bool
	epoch         uint64
}

type read struct {
	ticket  Ticket
	sampled bool
	money   int64
}

const modelLease = 15 * time.Second

func micro(n int64) Amount {
	whole, rest := n/1_000_000, n%1_000_000
	if rest < 0 {
		whole, rest = whole-1, rest+1_000_000
	}
	return Amount{whole, rest * 1_000_000}
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *model) fail(format string, args ...any) {
	if m.fault == "" {
		m.fault = fmt.Sprintf(format, args...)
	}
}

// newModel makes a history's begin. Amounts of different histories differ by up to 10^6.
func newModel(r *rand.Rand) *model {
	m := &model{r: r, now: 1_700_000_000_000, epoch: 1}
	m.money = m.someMoney()
	m.state = NewState(m.now)
	m.state.Enter(m.epoch)
	m.snapshot = m.state.AppendBinary(nil)
	if r.IntN(3) == 0 {
		m.refusalAge = 30 * time.Second
	}
	return m
}

func (m *model) someMoney() int64 {
	scale := int64(1)
	for range m.r.IntN(7) {
		scale *= 10
	}
	return m.r.Int64N(20*scale) + m.r.Int64N(3)
}

// cost is at most the hold, and varies by a thousand.
func (m *model) someCost(amount int64) int64 {
	switch m.r.IntN(4) {
	case 0:
		return amount
	case 1:
		return amount / 1000
	default:
		return m.r.Int64N(amount + 1)
	}
}

// request asks for admission, and reads the balance where it is told to, unless that fails.
func (m *model) request() {
	m.nextID++
	c := &call{amount: m.someMoney() / 4, epoch: m.epoch}
	c.cost = m.someCost(c.amount)
	c.id[0], c.id[1], c.id[2] = byte(m.nextID), byte(m.nextID>>8), byte(m.nextID>>16)
	ask := &Request{ID: c.id, Amount: micro(c.amount), Reserve: true, MaxAge: time.Minute, RefusalAge: m.refusalAge}
	fails := m.r.IntN(8) == 0
	for range 2 {
		result := m.state.Admit(m.now, ask, modelLease)
		m.note("admit %d of %d: %d", c.amount, m.money, result.Outcome)
		switch result.Outcome {
		case Admitted:
			m.running = append(m.running, c)
			return
		case Insufficient:
			if m.money-m.held() >= c.amount {
				m.fail("refused %d, but %d is there and %d is held", c.amount, m.money, m.held())
			}
			return
		case NeedsReading:
			if fails {
				return
			}
			m.state.EndReading(m.now, m.state.BeginReading(m.now), Balance{micro(m.money), true})
			m.note("read %d", m.money)
		default:
			m.fail("outcome %d", result.Outcome)
		}
	}
	m.fail("a reading that nothing followed did not decide")
}

func (m *model) held() (sum int64) {
	for _, c := range m.running {
		sum += c.amount
	}
	return sum
}

// charge takes the cost from the user's money.
func (m *model) charge(c *call) {
	if c.charged {
		return
	}
	c.charged = true
	m.money -= c.cost
	m.note("charge %d, %d left", c.cost, m.money)
	if m.money < 0 {
		m.fail("the balance fell to %d", m.money)
	}
}

func (m *model) takeRunning() *call {
	if len(m.running) == 0 {
		return nil
	}
	i := m.r.IntN(len(m.running))
	c := m.running[i]
	m.running = append(m.running[:i:i], m.running[i+1:]...)
	m.gone = append(m.gone, c)
	return c
}

// settle ends a running request: with its cost, without a word, or aborted.
func (m *model) settle() {
	c := m.takeRunning()
	if c == nil {
		return
	}
	t := Settlement{ID: c.id, Amount: micro(c.amount), Epoch: c.epoch}
	switch m.r.IntN(5) {
	case 0:
		if c.charged {
			t.Word = Unsaid // cut off after the money was spent
		}
	case 1:
		m.charge(c)
		t.Word = Unsaid
	default:
		m.charge(c)
		t.Word, t.Cost = Costs, micro(c.cost)
	}
	m.note("settle %d: %d %s", c.amount, t.Word, t.Cost)
	if m.state.Settle(m.now, &t).Repeated {
		m.fail("the first settlement counted as repeated")
	}
}

// settleAgain repeats a settlement, or settles a request whose lease ran out.
func (m *model) settleAgain() {
	if len(m.gone) == 0 {
		return
	}
	c := m.gone[m.r.IntN(len(m.gone))]
	m.note("settle %d again", c.amount)
	settled := m.state.Settle(m.now, &Settlement{ID: c.id, Amount: micro(c.amount), Word: Costs, Cost: micro(c.cost), Epoch: m.epoch})
	if settled.Repeated == c.late {
		m.fail("settled again: repeated %v, and the lease ran out: %v", settled.Repeated, c.late)
	}
	c.late = false
}

// die lets the leases run out of some of the requests, whose gateway has died or hangs.
// What they spend is spent before.
func (m *model) die() {
	for range m.r.IntN(3) {
		if c := m.takeRunning(); c != nil {
			c.late = true
			if m.r.IntN(2) == 0 {
				m.charge(c)
			}
		}
	}
	m.now += modelLease.Milliseconds() / 2
	m.renewAll()
	m.now += modelLease.Milliseconds()/2 + 1
	m.renewAll()
	m.note("leases ran out")
}

func (m *model) renewAll() {
	for _, c := range m.running {
		if !m.state.Renew(m.now, &Hold{ID: c.id, Amount: micro(c.amount)}, modelLease, false) {
			m.fail("a running hold of %d is unknown", c.amount)
		}
	}
}

func (m *model) beginReading() {
	m.reading = append(m.reading, &read{ticket: m.state.BeginReading(m.now)})
	m.note("begin %d", len(m.reading))
}

// readOn lets a reading go one step: the provider looks, or the result comes back. Some
// never do.
func (m *model) readOn() {
	if len(m.reading) == 0 {
		return
	}
	i := m.r.IntN(len(m.reading))
	r := m.reading[i]
	if !r.sampled {
		r.sampled, r.money = true, m.money
		m.note("the provider says %d", m.money)
		return
	}
	m.reading = append(m.reading[:i:i], m.reading[i+1:]...)
	if m.r.IntN(5) == 0 {
		m.note("a reading fails")
		return
	}
	m.note("reading ends: %d", r.money)
	m.state.EndReading(m.now, r.ticket, Balance{micro(r.money), m.r.IntN(20) > 0})
	if m.r.IntN(2) == 0 {
		m.request()
	}
}

// comeBack lets a gateway wake up whose leases have run out, before it settles.
func (m *model) comeBack() {
	for i, c := range m.gone {
		if !c.late {
			continue
		}
		if !c.charged {
			c.cost = 0 // what it could still spend, nobody holds for it any more
		}
		m.gone = append(m.gone[:i:i], m.gone[i+1:]...)
		m.running = append(m.running, c)
		c.late = false
		m.note("a hold of %d comes back", c.amount)
		m.renewAll()
		return
	}
}

// lose is a ledger that has lost its data, or has an older State. In the new epoch the
// gateways report what runs, and nothing is admitted until the leases of all other holds
// have run out.
func (m *model) lose() {
	m.epoch++
	m.note("data lost")
	m.state, _ = ParseState(m.snapshot)
	if m.r.IntN(2) == 0 {
		m.state = NewState(m.now)
	}
	m.state.Enter(m.epoch)
	for range 3 {
		m.now += modelLease.Milliseconds()/2 + 1
		m.restoreAll()
	}
}

func (m *model) restoreAll() {
	for _, c := range m.running {
		m.state.Renew(m.now, &Hold{ID: c.id, Amount: micro(c.amount)}, modelLease, true)
		c.epoch = m.epoch
	}
	m.gone = nil
}

// reload writes the State and reads it again.
func (m *model) reload() {
	state, ok := ParseState(m.state.AppendBinary(nil))
	if !ok {
		m.fail("the State is not read again")
		return
	}
	m.state = state
}

func (m *model) topUp() {
	if m.refusalAge == 0 {
		m.money += m.someMoney()
		m.note("top-up to %d", m.money)
	}
}

func (m *model) step() {
	m.now += 1 + m.r.Int64N(50)
	switch n := m.r.IntN(100); {
	case n < 30:
		m.request()
	case n < 50:
		m.settle()
	case n < 60:
		if len(m.running) > 0 {
			m.charge(m.running[m.r.IntN(len(m.running))])
		}
	case n < 70:
		m.beginReading()
	case n < 85:
		m.readOn()
	case n < 89:
		m.topUp()
	case n < 92:
		m.settleAgain()
	case n < 94:
		m.die()
	case n < 95:
		m.comeBack()
	case n < 96:
		m.reload()
	case n < 97:
		m.snapshot = m.state.AppendBinary(nil)
	case n < 99:
		m.lose()
	default:
		m.now += m.r.Int64N(120_000) // balances get old; what runs is renewed
		for _, c := range m.running {
			m.state.put(m.now, c.id, hold{amount: micro(c.amount), expires: m.now + modelLease.Milliseconds()})
		}
	}
}

// end settles what runs, and lets the leases of what died run out. Then nothing is held.
func (m *model) end() {
	for len(m.running) > 0 {
		m.settle()
	}
	m.now += modelLease.Milliseconds() + 1
	m.state.EndReading(m.now, m.state.BeginReading(m.now), Balance{micro(m.money), true})
	if len(m.state.holds) > 0 || !m.state.held.IsZero() || !m.state.unread().IsZero() {
		m.fail("nothing runs, and %d holds of %s are left, and %s unread", len(m.state.holds), m.state.held, m.state.unread())
	}
	result := m.state.Admit(m.now, &Request{Reserve: true, Amount: micro(m.money), MaxAge: time.Minute, Dry: true}, 0)
	if result.Outcome != Admitted || result.Available != micro(m.money) {
		m.fail("nothing runs, and %s of %d is available", result.Available, m.money)
	}
}

// histories is how many TestHistories runs. The soak runs more, with TOLLGATE_HISTORIES.
func histories(t *testing.T) (count int) {
	text := os.Getenv("TOLLGATE_HISTORIES")
	if text == "" {
		return 100_000
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TOLLGATE_HISTORIES: %v", err)
	}
	return count
}

func TestRandomHistoriesNeverOverspendNorRefuseWrongly(t *testing.T) {
	t.Parallel()
	base := uint64(time.Now().UnixNano())
	count := histories(t)
	for i := range count {
		seed := base + uint64(i)
		m := newModel(rand.New(rand.NewPCG(seed, 1)))
		for range 10 + m.r.IntN(60) {
			if m.step(); m.fault != "" {
				break
			}
		}
		if m.fault == "" {
			m.end()
		}
		if m.fault != "" {
			t.Fatalf("history %d: %s\n%s", seed, m.fault, strings.Join(m.log, "\n"))
		}
	}
	t.Logf("%d histories", count)
}
