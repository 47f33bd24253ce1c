package account

import (
	"math"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// decisiveAge returns the age from which a balance is re-read before it decides. A user
// without money who sends many requests causes at most one read per LackingAge.
func (n *Need) decisiveAge(v View) time.Duration {
	age := time.Duration(math.MaxInt64)
	if n != nil && n.AmpleAge > 0 {
		age = n.AmpleAge
	}
	switch n.Meet(v) {
	case Lacking:
		age = min(age, LackingAge)
	case scarce:
		age = min(age, scarceAge)
	}
	return age
}

// Amount is a required balance: as the operator wrote it, and as a number.
type Amount struct {
	Text  string
	Value decimal.Decimal
	// Near is twice Value. A balance below Near may soon be too low.
	Near decimal.Decimal
}

// Need is the balance that a path requires. A nil Need requires nothing.
type Need struct {
	*Amount
	// PassUnknown lets a user with an unknown balance pass, unless the balance is clearly
	// negative.
	PassUnknown bool
	// If AmpleAge is set, even a balance well above the limit is re-read once it is older
	// than this.
	AmpleAge time.Duration
}

// sufficiency is the result of comparing a balance with a Need.
type sufficiency int

const (
	// Lacking means that the balance is too low, or that it is unknown and the Need does
	// not accept that.
	Lacking sufficiency = iota
	// scarce means that the balance is high enough now, but may soon be too low.
	scarce
	// ample means that the balance is well above the limit.
	ample
)

// Meet compares the balance with the required one, exactly (without floating point).
func (n *Need) Meet(v View) sufficiency {
	if n == nil {
		return ample
	}
	balance, known := v.balance()
	switch {
	case !known && n.PassUnknown && !v.Owes():
		return ample
	case !known, balance.Compare(n.Value) < 0:
		return Lacking
	case balance.Compare(n.Near) < 0:
		return scarce
	default:
		return ample
	}
}

// Shortfall explains a 402 response: the balance that the user has, and the required one.
type Shortfall struct {
	Balance  *string // as the provider wrote it, or nil if it is unknown
	Required string
}

// Shortfall returns the user's balance and the required one.
func (n *Need) Shortfall(v View) *Shortfall {
	short := &Shortfall{Required: n.Text}
	if _, known := v.balance(); known {
		text := v.Info.Text(oauth.FieldBalance)
		short.Balance = &text
	}
	return short
}

// refusal is a request that the balance was too low for.
type refusal struct {
	need  decimal.Decimal
	short *Shortfall
	at    time.Time
}

// Lack returns why the balance is too low, or nil if it is high enough. A balance that was
// too low a moment ago, and is only just high enough now, is still too low for LackingAge.
// Otherwise readings that go back and forth at the limit would alternate between refusing
// and passing a user. This is not so for a user who was sent to the top-up page.
func (u *Users) Lack(s *session.Session, need *Need, v View) *Shortfall {
	if need == nil {
		return nil
	}
	user, now := u.known(s), u.now()
	switch need.Meet(v) {
	case Lacking:
		short := need.Shortfall(v)
		user.refusal.Store(&refusal{need.Value, short, now})
		return short
	case scarce:
		last := user.refusal.Load()
		if last != nil && !user.awaitsMoney(now) && flight.Within(now.Sub(last.at), LackingAge) && last.need.Compare(need.Value) <= 0 && last.short.Balance != nil {
			return &Shortfall{Balance: last.short.Balance, Required: need.Text}
		}
	}
	return nil
}
