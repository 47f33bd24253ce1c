package spending

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
)

const (
	// places is the number of decimal places that an Amount keeps.
	places = 12
	// partsPerUnit is the number of parts in a whole unit: ten to the power of places.
	partsPerUnit = 1_000_000_000_000
	// maxWholeDigits bounds a balance and a cost. Both halves of an Amount, and every sum
	// that a State makes, then stay below 2^53: a script in Redis computes with doubles,
	// and they are exact up to there.
	maxWholeDigits = 15
	// maxWhole is the largest number of whole units with maxWholeDigits digits.
	maxWhole = 999_999_999_999_999
	// maxHoldWhole bounds what one request holds, in whole units. maxHolds of them stay
	// below maxWhole.
	maxHoldWhole = 100_000_000_000
)

// Amount is an exact amount of money: whole units, and parts of a unit. Its value is
// whole + parts / 10^12, with 0 <= parts < 10^12. So -0.25 has the whole -1. No amount
// passes through binary floating point. The zero value is 0.
type Amount struct{ whole, parts int64 }

// maxAmount is the largest amount. Sums stop there.
var maxAmount = Amount{maxWhole, partsPerUnit - 1}

// Add returns a + b.
func (a Amount) Add(b Amount) Amount {
	sum := Amount{a.whole + b.whole, a.parts + b.parts}
	if sum.parts >= partsPerUnit {
		sum.whole, sum.parts = sum.whole+1, sum.parts-partsPerUnit
	}
	return sum
}

// addCapped returns a + b, or maxAmount if the sum is larger. No user can
// pay such a sum, so no decision depends on the rest.
func (a Amount) addCapped(b Amount) Amount {
	if sum := a.Add(b); !maxAmount.Less(sum) {
		return sum
	}
	return maxAmount
}

// Sub returns a - b.
func (a Amount) Sub(b Amount) Amount {
	rest := Amount{a.whole - b.whole, a.parts - b.parts}
	if rest.parts < 0 {
		rest.whole, rest.parts = rest.whole-1, rest.parts+partsPerUnit
	}
	return rest
}

// Less reports whether a is less than b.
func (a Amount) Less(b Amount) bool {
	return a.whole < b.whole || a.whole == b.whole && a.parts < b.parts
}

// IsZero reports whether a is 0.
func (a Amount) IsZero() bool { return a == Amount{} }

// String returns the amount with at least two decimal places, as people write money.
func (a Amount) String() string {
	sign := ""
	if a.whole < 0 {
		sign, a = "-", Amount{}.Sub(a)
	}
	fraction := strings.TrimRight(fmt.Sprintf("%0*d", places, a.parts), "0")
	for len(fraction) < 2 {
		fraction += "0"
	}
	return sign + strconv.FormatInt(a.whole, 10) + "." + fraction
}

var (
	errTooMuch   = fmt.Errorf("must be at most %d", int64(maxHoldWhole))
	errNoAmount  = errors.New("must be an amount, such as 0.50")
	errNegative  = errors.New("must not be negative")
	errDigits    = fmt.Errorf("must have at most %d digits before the point", maxWholeDigits)
	errCostTwice = errors.New("must be there once")
)

// ParseRequired reads an amount of the configuration: what a request holds, or a budget.
// It rounds up what is beyond twelve decimal places.
func ParseRequired(text string) (Amount, error) {
	a, rounded, err := parse(text)
	switch {
	case err != nil:
		return Amount{}, err
	case a.whole < 0:
		return Amount{}, errNegative
	}
	if rounded {
		a = a.Add(Amount{parts: 1})
	}
	if (Amount{whole: maxHoldWhole}).Less(a) {
		return Amount{}, errTooMuch
	}
	return a, nil
}

// BalanceOf returns a balance. It rounds down to twelve decimal places. An amount with more
// than fifteen whole digits becomes the nearest one with fifteen.
func BalanceOf(d decimal.Decimal) Amount {
	text := d.String()
	a, _, err := parse(text)
	switch {
	case err == nil:
		return a
	case strings.HasPrefix(text, "-"):
		return Amount{}.Sub(maxAmount)
	default:
		return maxAmount
	}
}

// parseCost reads the values of Tollgate-Cost in one response. told is false without a
// value. It rounds up what is beyond twelve decimal places: programs that compute with binary
// fractions write 0.1 + 0.2 as 0.30000000000000004. An error is a fault of the upstream:
// several values, a negative value, too many digits before the point, or not a decimal number.
func parseCost(values []string) (cost Amount, told bool, err error) {
	switch len(values) {
	case 0:
		return Amount{}, false, nil
	case 1:
	default:
		return Amount{}, false, errCostTwice
	}
	cost, rounded, err := parse(values[0])
	switch {
	case err != nil:
		return Amount{}, false, err
	case cost.whole < 0:
		return Amount{}, false, errNegative
	case rounded:
		cost = cost.addCapped(Amount{parts: 1})
	}
	return cost, true, nil
}

// parse reads an amount, rounded down. rounded is true if it had more decimal places.
func parse(text string) (a Amount, rounded bool, err error) {
	d, ok := decimal.Parse(text)
	if !ok {
		return Amount{}, false, errNoAmount
	}
	digits, negative := strings.CutPrefix(d.String(), "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	if len(whole) > maxWholeDigits {
		return Amount{}, false, errDigits
	}
	if rounded = len(fraction) > places; rounded {
		fraction = fraction[:places]
	}
	a.whole, _ = strconv.ParseInt(whole, 10, 64) // digits only, and few enough
	a.parts, _ = strconv.ParseInt(fraction+strings.Repeat("0", places-len(fraction)), 10, 64)
	if !negative {
		return a, rounded, nil
	}
	if a = (Amount{}).Sub(a); rounded {
		a = a.Sub(Amount{parts: 1})
	}
	return a, rounded, nil
}

// Limbs returns the two halves of the amount, for a ledger that stores them.
func (a Amount) Limbs() (whole, parts int64) { return a.whole, a.parts }

// AmountOf returns the amount with the given halves.
func AmountOf(whole, parts int64) Amount { return Amount{whole, parts} }
