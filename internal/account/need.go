package account

import (
	"math"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// decisiveAge is the age from which on a balance is re-read before it decides. A user
// without money who asks again and again causes one read for each LackingAge.
func (n *Need) decisiveAge(v View) time.Duration {
	age := time.Duration(math.MaxInt64)
	if n != nil && n.AmpleAge > 0 {
		age = n.AmpleAge
	}
	switch n.Meet(v) {
	case Lacking:
		age = min(age, LackingAge)
	case scarce:
		age = min(age, ScarceAge)
	}
	return age
}

// Amount is a required balance, as the operator wrote it and as it is compared.
type Amount struct {
	Text  string
	Value decimal.Decimal
	// Near is twice the value: a balance below that may soon be too low.
	Near decimal.Decimal
}

// Need is what a path asks of a balance. None is nil.
type Need struct {
	*Amount
	// PassUnknown: a balance that is not known is good enough, unless it is plainly
	// negative.
	PassUnknown bool
	// AmpleAge, if set, is the age from which on also a balance is re-read before it
	// decides that suffices amply.
	AmpleAge time.Duration
}

// sufficiency is how a balance stands to a need.
type sufficiency int

const (
	// Lacking: it is too low, or not known, and that does not do.
	Lacking sufficiency = iota
	// scarce: it suffices, but may not for long.
	scarce
	// ample: it suffices.
	ample
)

// Meet compares a balance with a need, exactly.
func (n *Need) Meet(v View) sufficiency {
	if n == nil {
		return ample
	}
	balance, known := v.balance()
	switch {
	case !known && n.PassUnknown && !v.owes():
		return ample
	case !known, balance.Compare(n.Value) < 0:
		return Lacking
	case balance.Compare(n.Near) < 0:
		return scarce
	default:
		return ample
	}
}

// Shortfall is what a request lacks that is turned away for its balance.
type Shortfall struct {
	Balance  *string // as the provider wrote it, or nil when it is not known
	Required string
}

func (n *Need) Shortfall(v View) *Shortfall {
	short := &Shortfall{Required: n.Text}
	if _, known := v.balance(); known {
		text := v.Info.Text(oauth.FieldBalance)
		short.Balance = &text
	}
	return short
}
