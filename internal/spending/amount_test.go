package spending

import (
	"math/big"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
)

func TestRequiredAmountsRoundUp(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0.50": "0.50", "0": "0.00", "3": "3.00", "0.0213": "0.0213", "1,000.5": "1000.50", "100000000000": "100000000000.00",
		"0.000000000001": "0.000000000001", "0.0000000000001": "0.000000000001", "0.9999999999999": "1.00",
		"0.00000000000000": "0.00", "1.1234567890120": "1.123456789012",
	} {
		if a, err := ParseRequired(text); err != nil || a.String() != want {
			t.Errorf("%s: got %s %v, want %s", text, a, err, want)
		}
	}
	for _, text := range []string{"", "abc", "-1", "-0.0000000000001", "100000000000.1", "1e3", "1234567890123456"} {
		if a, err := ParseRequired(text); err == nil {
			t.Errorf("%s was read as %s", text, a)
		}
	}
}

func TestBalancesRoundDown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"750.00": "750.00", "0.9999999999999": "0.999999999999", "0.0000000000001": "0.00",
		"-0.25": "-0.25", "-0.0000000000001": "-0.000000000001", "-1.5": "-1.50",
		"9999999999999999": "999999999999999.999999999999", "-9999999999999999": "-999999999999999.999999999999",
		"999999999999999": "999999999999999.00",
	} {
		d, ok := decimal.Parse(text)
		if a := BalanceOf(d); !ok || a.String() != want {
			t.Errorf("%s: got %s, want %s", text, a, want)
		}
	}
}

func TestCostIsReadRoundedUpOrRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"0.0213": "0.0213", "0": "0.00", " 7 ": "7.00", "0.0000000000010": "0.000000000001", "999999999999999.999999999999": "999999999999999.999999999999", "0.30000000000000004": "0.300000000001", "0.0000000000001": "0.000000000001", "999999999999999.9999999999999": "999999999999999.999999999999"} {
		if a, told, err := parseCost([]string{text}); err != nil || !told || a.String() != want {
			t.Errorf("%s: got %s %v %v, want %s", text, a, told, err, want)
		}
	}
	if _, told, err := parseCost(nil); told || err != nil {
		t.Errorf("no cost: %v %v", told, err)
	}
	for _, values := range [][]string{{""}, {"-0.01"}, {"-0.0000000000001"}, {"1", "1"}, {"1000000000000000"}, {"1e9"}, {"NaN"}, {"0x1"}, {"1;2"}, {strings.Repeat("9", 300)}} {
		if a, told, err := parseCost(values); err == nil || told {
			t.Errorf("%q was read as %s", values, a)
		}
	}
}

func FuzzAmountsAreExact(f *testing.F) {
	f.Add("0.1", "-0.25")
	f.Add("999999999999999.999999999999", "0.000000000001")
	f.Fuzz(func(t *testing.T, x, y string) {
		a, aRounded, errA := parse(x)
		b, bRounded, errB := parse(y)
		if errA != nil || errB != nil || aRounded || bRounded {
			return
		}
		exact := func(a Amount) *big.Rat {
			r, ok := new(big.Rat).SetString(a.String())
			if !ok || a.parts < 0 || a.parts >= partsPerUnit {
				t.Fatalf("%+v is not an amount", a)
			}
			return r
		}
		if sum := new(big.Rat).Add(exact(a), exact(b)); sum.Cmp(exact(a.Add(b))) != 0 {
			t.Errorf("%s + %s = %s", a, b, a.Add(b))
		}
		if rest := new(big.Rat).Sub(exact(a), exact(b)); rest.Cmp(exact(a.Sub(b))) != 0 {
			t.Errorf("%s - %s = %s", a, b, a.Sub(b))
		}
		if (exact(a).Cmp(exact(b)) < 0) != a.Less(b) {
			t.Errorf("%s < %s: %v", a, b, a.Less(b))
		}
	})
}
