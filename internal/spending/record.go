package spending

import (
	"encoding/binary"

	"github.com/caddy-tollgate/tollgate/internal/wire"
)

// stateVersion is the version of the binary form below.
const stateVersion = 1

// AppendBinary appends the binary form of the State: for a ledger that keeps bytes.
func (s *State) AppendBinary(b []byte) []byte {
	b = append(b, stateVersion)
	for _, n := range []uint64{s.epoch, s.seq, s.applied} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendBool(b, s.known)
	b = appendAmount(b, s.balance)
	b = binary.AppendVarint(b, s.readAt)
	b = appendAmount(b, s.open)
	b = binary.AppendUvarint(b, uint64(len(s.closed)))
	for _, c := range s.closed {
		b = appendAmount(binary.AppendUvarint(b, c.number), c.sum)
	}
	b = binary.AppendUvarint(b, uint64(len(s.accounts)))
	for _, a := range s.accounts {
		b = append(wire.AppendText(b, a.key), byte(a.window))
		b = appendAmount(binary.AppendVarint(b, a.start), a.spent)
	}
	b = binary.AppendUvarint(b, uint64(len(s.holds)))
	for id, h := range s.holds {
		b = appendAmount(append(b, id[:]...), h.amount)
		b = binary.AppendVarint(b, h.expires)
		b = binary.AppendUvarint(b, uint64(len(h.budgets)))
		for _, budget := range h.budgets {
			b = append(wire.AppendText(b, budget.Key), byte(budget.Window))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(s.lapsed)))
	for id, until := range s.lapsed {
		b = binary.AppendVarint(append(b, id[:]...), until)
	}
	return binary.AppendVarint(b, s.keepUntil)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendAmount(b []byte, a Amount) []byte {
	return binary.AppendVarint(binary.AppendVarint(b, a.whole), a.parts)
}

// ParseState reads the binary form. ok is false if b is anything else.
func ParseState(b []byte) (s *State, ok bool) {
	r := stateReader{wire.NewReader(b)}
	if r.Byte() != stateVersion {
		return nil, false
	}
	s = &State{epoch: r.Uvarint(), seq: r.Uvarint(), applied: r.Uvarint()}
	s.known = r.Byte() == 1
	s.balance = r.amount()
	s.readAt = r.Varint()
	s.open = r.amount()
	for range r.count(maxClosed) {
		s.closed = append(s.closed, settledBefore{r.Uvarint(), r.amount()})
	}
	for range r.count(maxAccounts) {
		s.accounts = append(s.accounts, account{key: r.Text(), window: Window(r.Byte()), start: r.Varint(), spent: r.amount()})
	}
	for range r.count(maxHolds + restoredHolds) {
		r.hold(s)
	}
	for range r.count(maxHolds) {
		if s.lapsed == nil {
			s.lapsed = map[ID]int64{}
		}
		s.lapsed[r.id()] = r.Varint()
	}
	s.keepUntil = r.Varint()
	return s, r.Done()
}

const (
	// maxAccounts and restoredHolds only bound what a damaged record can claim.
	maxAccounts   = 1 << 10
	restoredHolds = 1 << 16
)

// stateReader reads the parts of a State.
type stateReader struct{ *wire.Reader }

func (r stateReader) amount() Amount { return Amount{whole: r.Varint(), parts: r.Varint()} }

func (r stateReader) id() (id ID) {
	copy(id[:], r.Bytes(len(id)))
	return id
}

// count reads a count. One above the limit fails at the end: Done reports what is left.
func (r stateReader) count(limit int) int {
	n := r.Uvarint()
	if n > uint64(limit) {
		return 0
	}
	return int(n)
}

// hold reads a hold, and adds it to the sums, which are not written.
func (r stateReader) hold(s *State) {
	id, h := r.id(), hold{amount: r.amount(), expires: r.Varint()}
	for range r.count(maxAccounts) {
		h.budgets = append(h.budgets, Budget{Key: r.Text(), Window: Window(r.Byte())})
	}
	if s.holds == nil {
		s.holds = map[ID]hold{}
	}
	s.holds[id] = h
	s.held = s.held.Add(h.amount)
	if h.expires > 0 && (s.lease == 0 || h.expires < s.lease) {
		s.lease = h.expires
	}
	for i := range h.budgets {
		if a := s.account(&h.budgets[i]); a != nil {
			a.held = a.held.Add(h.amount)
		}
	}
}
