package keys

import (
	"bytes"
	"strings"
	"testing"
)

func sampleSealer(t *testing.T, site, purpose string, secrets ...string) *Sealer {
	t.Helper()
	var raw [][]byte
	for _, secret := range secrets {
		raw = append(raw, []byte(strings.Repeat(secret, 32)))
	}
	s, err := newSealer(raw, "client", site, purpose, MaxSessionValue)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealerOpensOnlyItsSiteSecretAndPurpose(t *testing.T) {
	s := sampleSealer(t, "https://a.example/cb", purposeSession, "x")
	sealed, err := s.Seal([]byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, which, ok := s.Open(sealed); !ok || which != 0 || string(plain) != "plain" {
		t.Errorf("the sealer itself: %q %v %v", plain, which, ok)
	}
	if _, which, ok := sampleSealer(t, "https://a.example/cb", purposeSession, "new", "x").Open(sealed); !ok || which != 1 {
		t.Errorf("as a previous secret: %v %v", which, ok)
	}
	for _, c := range []struct {
		name  string
		other *Sealer
	}{
		{"another site", sampleSealer(t, "https://b.example/cb", purposeSession, "x")},
		{"another purpose", sampleSealer(t, "https://a.example/cb", purposeLogin, "x")},
		{"another secret", sampleSealer(t, "https://a.example/cb", purposeSession, "y")},
	} {
		if _, _, ok := c.other.Open(sealed); ok {
			t.Errorf("%s opens it", c.name)
		}
	}
}

func TestSealedValuesHaveOneSpellingAndCannotChange(t *testing.T) {
	s := sampleSealer(t, "https://a.example/cb", purposeSession, "x")
	sealed, _ := s.Seal([]byte("some plain text"))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range len(sealed) {
		for _, c := range []byte(alphabet + "=+/ \n\x00") {
			if sealed[i] == c {
				continue
			}
			if _, _, ok := s.Open(sealed[:i] + string(c) + sealed[i+1:]); ok {
				t.Fatalf("byte %d may be %q instead of %q", i, c, sealed[i])
			}
		}
	}
	for _, other := range []string{"", sealed + "=", sealed + "\n", "\n" + sealed, strings.TrimRight(sealed, "="), sealed + sealed, sealed[:len(sealed)-4]} {
		if other == sealed {
			continue
		}
		if _, _, ok := s.Open(other); ok {
			t.Errorf("%q opens, too", other)
		}
	}
}

// FuzzSealed checks that a sealed value opens unchanged. Every other value must be refused: random
// text, a value with one changed byte, and a value that was sealed for another purpose.
func FuzzSealed(f *testing.F) {
	f.Add([]byte("plain"), 3, byte('x'), "made up")
	f.Add([]byte{}, 0, byte('='), "")
	secret := [][]byte{bytes.Repeat([]byte{7}, MinSecret)}
	session, _ := newSealer(secret, "c", "https://a.example/cb", purposeSession, MaxSessionValue)
	login, _ := newSealer(secret, "c", "https://a.example/cb", purposeLogin, MaxSessionValue)
	f.Fuzz(func(t *testing.T, plain []byte, at int, b byte, madeUp string) {
		sealed, err := session.Seal(plain)
		if err != nil || len(plain) == 0 {
			return // too long, or not allowed
		}
		opened, _, ok := session.Open(sealed)
		if !ok || !bytes.Equal(opened, plain) {
			t.Fatalf("%x comes back as %x, %v", plain, opened, ok)
		}
		if _, _, ok := login.Open(sealed); ok {
			t.Fatal("it opens for another purpose")
		}
		if at >= 0 && at < len(sealed) && sealed[at] != b {
			if _, _, ok := session.Open(sealed[:at] + string(rune(b)) + sealed[at+1:]); ok {
				t.Fatalf("byte %d of %q may be %q", at, sealed, b)
			}
		}
		if _, _, ok := session.Open(madeUp); ok {
			t.Fatalf("%q opens", madeUp)
		}
	})
}
