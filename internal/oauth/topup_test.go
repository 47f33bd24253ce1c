package oauth

import "testing"

func TestTopupURLNeedsAPortAndLabelsThatBrowsersOpen(t *testing.T) {
	for _, c := range []struct {
		raw string
		ok  bool
	}{
		{"https://e.com/x", true},
		{"https://e.com./x", true},
		{"https://e.com:65535/", true},
		{"https://[2001:db8::1]/x", true},
		{"http://127.0.0.1:8080/", true},
		{"https://e.com:65536/", false},
		{"https://e.com:99999/", false},
		{"https://e..com/", false},
		{"https://.e.com/", false},
		{"https://e.com../", false},
	} {
		if _, reason := checkTopupURL(c.raw, nil); c.ok != (reason == "") {
			t.Errorf("%s: got reason %q, want usable %t", c.raw, reason, c.ok)
		}
	}
}
