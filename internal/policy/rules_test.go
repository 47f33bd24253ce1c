package policy

import "testing"

// TestEmailDomainIsComparedInASCIILowerCase: the lower case of some other letters, such as the
// Kelvin sign, is an ASCII letter, which would make another domain.
func TestEmailDomainIsComparedInASCIILowerCase(t *testing.T) {
	for _, c := range []struct{ email, want string }{
		{"a@Example.COM", "example.com"},
		{"a@\u212aelvin.example", "\u212aelvin.example"},
		{"a@b@example.com", ""},
		{"@example.com", ""},
		{"example.com", ""},
		{"", ""},
	} {
		if got := domainOf(c.email); got != c.want {
			t.Errorf("%q: got the domain %q, want %q", c.email, got, c.want)
		}
	}
}
