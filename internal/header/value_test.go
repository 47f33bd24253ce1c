package header_test

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/header"
)

// overTheWire sends a header value in an HTTP/1.1 message, and returns what the receiver
// reads.
func overTheWire(t *testing.T, value string) string {
	t.Helper()
	req, _ := http.NewRequest(http.MethodGet, "http://upstream.example/", nil)
	req.Header["X-User-Name"] = []string{value}
	var message bytes.Buffer
	if err := req.Write(&message); err != nil {
		t.Fatal(err)
	}
	received, err := http.ReadRequest(bufio.NewReader(&message))
	if err != nil {
		t.Fatal(err)
	}
	lines := received.Header["X-User-Name"]
	if len(lines) != 1 {
		t.Fatalf("%q arrived as %q", value, lines)
	}
	return lines[0]
}

// FuzzHeaderValue: a value is printable ASCII, arrives over HTTP as it was sent, and
// decodes to exactly the original text.
func FuzzHeaderValue(f *testing.F) {
	for _, seed := range []string{"user123", "张伟", "a%41", "a\r\nX-User-Id: 1", "\x00\xff", " admin", "admin ", "  a  b  ", " ", "\tadmin\t", "a\r\n b", "a, b;c=\"d\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		encoded := header.Encode(value)
		if strings.ContainsFunc(encoded, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			t.Fatalf("%q becomes %q", value, encoded)
		}
		arrived := overTheWire(t, encoded)
		if decoded, err := url.PathUnescape(arrived); err != nil || decoded != value {
			t.Fatalf("%q was sent as %q, arrived as %q and decodes to %q, %v", value, encoded, arrived, decoded, err)
		}
	})
}

func TestEncodeKeepsSpacesAtBothEnds(t *testing.T) {
	for value, want := range map[string]string{
		"":            "",
		"a b":         "a b",
		" admin":      "%20admin",
		"admin ":      "admin%20",
		"  a  b  ":    "%20%20a  b%20%20",
		" ":           "%20",
		"   ":         "%20%20%20",
		" 张 ":         "%20%E5%BC%A0%20",
		"\tadmin\r\n": "%09admin%0D%0A",
	} {
		if got := header.Encode(value); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}
