package browser

import (
	"testing"
	"time"
)

// FuzzLoginRecord: what reads as a login is written and read back the same, and an
// expired one, or one from the future, is none.
func FuzzLoginRecord(f *testing.F) {
	now := time.UnixMilli(1_700_000_000_000)
	f.Add(NewLogin("/page?x", true, "nonce", now).appendBinary(nil), int64(0))
	f.Add([]byte{loginVersion, 0}, int64(5))
	f.Fuzz(func(t *testing.T, record []byte, later int64) {
		l, ok := parseLogin(record)
		if !ok {
			return
		}
		again, ok := parseLogin(l.appendBinary(nil))
		if !ok || *again != *l {
			t.Fatalf("%x reads as %+v, and then as %+v, %v", record, l, again, ok)
		}
		at := now.Add(time.Duration(later))
		if age := at.Sub(l.started); !l.Expired(at) && (age >= LoginLifetime || age < -time.Minute) {
			t.Fatalf("a login of %v is still good", age)
		}
	})
}
