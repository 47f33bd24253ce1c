// Package decimal reads and compares amounts of money exactly as they are written.
// No amount passes through binary floating point. It does no sums: package spending adds
// amounts. Begin with Parse.
package decimal

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Decimal is an exact decimal number. The zero value is 0.
type Decimal struct {
	negative bool
	whole    string // digits without leading zeros
	fraction string // digits without trailing zeros
}

// maxLength is the maximum length of an amount's text in bytes.
const maxLength = 256

// Parse reads an optional sign, then digits with an optional fraction, such as
// `750.00` or `-0.01`. One leading currency sign, before or after the sign, and
// commas between groups of three digits are read, too. ok is false for anything
// else: such an amount is unknown, and not zero.
func Parse(text string) (d Decimal, ok bool) {
	if len(text) > maxLength {
		return Decimal{}, false
	}
	rest, negative, signed := cutSign(strings.TrimSpace(text))
	if rest, ok = cutCurrency(rest); ok && !signed {
		rest, negative, _ = cutSign(rest)
	}
	whole, fraction, hasPoint := strings.Cut(rest, ".")
	if whole, ok = joinThousands(whole); !ok || (hasPoint && !isDigits(fraction)) {
		return Decimal{}, false
	}
	d = Decimal{
		whole:    strings.TrimLeft(whole, "0"),
		fraction: strings.TrimRight(fraction, "0"),
	}
	d.negative = negative && (d.whole != "" || d.fraction != "") // there is one zero
	return d, true
}

// minusSigns are the characters that people write for a minus sign: the hyphen, dashes,
// the minus sign proper, and their small, superscript and full-width forms.
const minusSigns = "-\u00ad\u02d7\u2010\u2011\u2012\u2013\u2014\u2015\u207b\u208b\u2212\u2796\ufe58\ufe63\uff0d"

// LooksNegative reports whether a text that Parse cannot read looks like a negative amount.
// Such a text has a minus sign before or after its digits, or an opening bracket before
// them, as in bookkeeping. In case of doubt it returns true.
func LooksNegative(text string) bool {
	first := strings.IndexFunc(text, unicode.IsDigit)
	if first < 0 {
		return false
	}
	last := strings.LastIndexFunc(text, unicode.IsDigit)
	_, size := utf8.DecodeRuneInString(text[last:])
	before := strings.TrimFunc(text[:first], isAround)
	after := strings.TrimLeftFunc(text[last+size:], isAround)
	const brackets = "(\uff08"
	marked := func(r rune) bool { return strings.ContainsRune(minusSigns+brackets, r) }
	opening, _ := utf8.DecodeRuneInString(before)
	closing, _ := utf8.DecodeLastRuneInString(before)
	behind, _ := utf8.DecodeRuneInString(after)
	return marked(opening) || marked(closing) || strings.ContainsRune(minusSigns, behind)
}

// isAround reports whether a rune may stand between a sign and the digits.
func isAround(r rune) bool {
	return unicode.IsSpace(r) || r == '.' || r == ',' || unicode.Is(unicode.Sc, r)
}

func cutSign(s string) (rest string, negative, signed bool) {
	switch {
	case strings.HasPrefix(s, "-"):
		return s[1:], true, true
	case strings.HasPrefix(s, "+"):
		return s[1:], false, true
	default:
		return s, false, false
	}
}

// currencySigns are the currency signs that Parse accepts.
const currencySigns = "$€£¥₹₩₽₺฿₫₱₴₦₪"

func cutCurrency(s string) (rest string, found bool) {
	sign, size := utf8.DecodeRuneInString(s)
	if size == 0 || !strings.ContainsRune(currencySigns, sign) {
		return s, false
	}
	return s[size:], true
}

// joinThousands removes the commas of `1,234,567`. ok is false if a comma is anywhere else,
// because it may be a decimal comma.
func joinThousands(s string) (digits string, ok bool) {
	if !strings.Contains(s, ",") {
		return s, isDigits(s)
	}
	groups := strings.Split(s, ",")
	for i, group := range groups {
		wrong := len(group) != 3
		if i == 0 {
			wrong = len(group) < 1 || len(group) > 3
		}
		if wrong || !isDigits(group) {
			return "", false
		}
	}
	return strings.Join(groups, ""), true
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Compare returns -1 if d is less than other, 0 if they are equal, and 1 if d is greater.
func (d Decimal) Compare(other Decimal) int {
	switch {
	case d.negative && !other.negative:
		return -1
	case !d.negative && other.negative:
		return 1
	case d.negative:
		return -compareMagnitude(d, other)
	default:
		return compareMagnitude(d, other)
	}
}

// compareMagnitude compares without the signs. There are no leading and trailing zeros. So
// the number with more digits before the point is greater, and digits compare like text.
func compareMagnitude(a, b Decimal) int {
	if len(a.whole) != len(b.whole) {
		if len(a.whole) < len(b.whole) {
			return -1
		}
		return 1
	}
	if c := strings.Compare(a.whole, b.whole); c != 0 {
		return c
	}
	return strings.Compare(a.fraction, b.fraction)
}

// Double returns twice the number.
func (d Decimal) Double() Decimal {
	digits := []byte(d.whole + d.fraction)
	carry := byte(0)
	for i := len(digits) - 1; i >= 0; i-- {
		twice := 2*(digits[i]-'0') + carry
		digits[i], carry = '0'+twice%10, twice/10
	}
	point := len(digits) - len(d.fraction)
	whole := string(digits[:point])
	if carry == 1 {
		whole = "1" + whole
	}
	return Decimal{negative: d.negative, whole: whole, fraction: strings.TrimRight(string(digits[point:]), "0")}
}

// String returns the number with at least one digit before the point, and without
// superfluous zeros.
func (d Decimal) String() string {
	s := d.whole
	if s == "" {
		s = "0"
	}
	if d.negative {
		s = "-" + s
	}
	if d.fraction != "" {
		s += "." + d.fraction
	}
	return s
}
