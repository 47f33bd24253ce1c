package decimal

import (
	"math/big"
	"testing"
)

func TestAmountsAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]string{
		"750.00": "750", "0": "0", "-0": "0", "+0.50": "0.5", "-0.01": "-0.01", "007.10": "7.1", " 3.20 ": "3.2",
		"$3.20": "3.2", "-$3.20": "-3.2", "$-3.20": "-3.2", "¥1,000.00": "1000", "1,234,567.89": "1234567.89", "€0.5": "0.5",
		"0.49999999999999999999": "0.49999999999999999999", "99999999999999999999999999": "99999999999999999999999999",
		"": "", " ": "", ".5": "", "5.": "", "1.2.3": "", "1e3": "", "0x10": "", "--1": "", "-$-1": "", "$$1": "", "1$": "",
		"1,00": "", "1,0000": "", ",100": "", "1,,000": "", "1.000,50": "", "10,00.00": "", "١٢": "", "NaN": "", "Inf": "", "unlimited": "",
		"1 000": "", "1_000": "", "1.0,0": "",
	} {
		d, ok := Parse(text)
		if ok != (want != "") || (ok && d.String() != want) {
			t.Errorf("%q: got %q, %v, want %q", text, d, ok, want)
		}
	}
}

func TestAmountsCompareExactly(t *testing.T) {
	ordered := []string{"-1000.5", "-1000", "-2", "-0.02", "-0.01", "0", "0.01", "0.49999999999999999999", "0.5", "0.50000000000000000001", "1", "2", "10", "1,000.00", "1000.1"}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			x, _ := Parse(a)
			y, _ := Parse(b)
			if got := x.Compare(y); got != want {
				t.Errorf("%s against %s: got %d, want %d", a, b, got, want)
			}
		}
	}
	a, _ := Parse("0.50")
	b, _ := Parse("0.5")
	if a.Compare(b) != 0 {
		t.Error("0.50 is not 0.5")
	}
}

func TestDoubleReturnsTwiceTheAmount(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "0.5": "1", "0.05": "0.1", "0.50": "1", "49.95": "99.9", "5": "10", "99.99": "199.98", "-0.75": "-1.5", "0.25": "0.5"} {
		d, _ := Parse(text)
		twice, _ := Parse(want)
		if d.Double() != twice {
			t.Errorf("%s: got %s", text, d.Double())
		}
	}
}

// FuzzCompare: what is read compares as math/big compares it, and reads back as it
// is written.
func FuzzCompare(f *testing.F) {
	for _, seed := range [][2]string{{"0.50", "0.5"}, {"-0.01", "$1,000.00"}, {"", "1e5"}, {"¥3", "-3"}, {"1,0", "00"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, ok := Parse(a)
		if !ok {
			return
		}
		exact, valid := new(big.Rat).SetString(x.String())
		if !valid {
			t.Fatalf("%q is read as %q", a, x)
		}
		if twice, _ := new(big.Rat).SetString(x.Double().String()); twice.Cmp(new(big.Rat).Add(exact, exact)) != 0 {
			t.Fatalf("twice %q is %q", x, x.Double())
		}
		if again, ok := Parse(x.Double().String()); ok && again != x.Double() {
			t.Fatalf("twice %q is %q, and reads %q", x, x.Double(), again)
		}
		if again, ok := Parse(x.String()); !ok || again != x {
			t.Fatalf("%q is read as %q, and that as %q", a, x, again)
		}
		y, ok := Parse(b)
		if !ok {
			return
		}
		other, _ := new(big.Rat).SetString(y.String())
		if got, want := x.Compare(y), exact.Cmp(other); got != want {
			t.Fatalf("%q against %q: got %d, want %d", a, b, got, want)
		}
	})
}

func TestNegativeAmountsInOtherNotationsAreNoticed(t *testing.T) {
	for text, want := range map[string]bool{
		"(5.00)": true, "( $5.00 )": true, "$(5.00)": true, "（5.00）": true, "−5.00": true, "–5": true, "－５": true, "5.00-": true, "5.00 −": true,
		"- 5.00": true, "-$ 5,00": true, "EUR -5,00": true, "USD (5.00)": true, "-1e3": true, "-.5": true,
		"": false, "-": false, "(none)": false, "5,00": false, "5.00 (USD)": false, "pay-as-you-go 5": false, "1e-3": false, "unlimited": false, "\xff5": false, "5\xff": false,
	} {
		if got := LooksNegative(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
