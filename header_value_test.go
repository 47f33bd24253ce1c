package tollgate

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/simulator"
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

func TestHeaderValueKeepsBlanksAtBothEnds(t *testing.T) {
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

// TestUsersWithBlanksArriveAsDifferentUsers signs in users whose names, and ids, differ
// only in blanks at their ends.
func TestUsersWithBlanksArriveAsDifferentUsers(t *testing.T) {
	const own = ` {http.auth.user.username} `
	for _, name := range []string{"admin", " admin", "admin ", " ", "  12345 "} {
		t.Run(strconv.Quote(name), func(t *testing.T) {
			options := asked(anyPeer, "identity default webauth remote forwarded auth_request {\nheader X-Own \""+own+"\"\n}")
			options.inProvider = "fields {\nid username\n}"
			options.provider.AutoLogin = name
			options.provider.Users = []simulator.User{{ID: 1, Username: name, BalanceCents: 100, Status: 1}}
			s := newSite(t, options)
			b := s.newBrowser()
			page := b.follow("/")
			for where, header := range map[string]http.Header{"upstream": page.seen(t).Header, "auth": b.Get("/oauth/auth").Header} {
				for _, field := range []string{
					"X-User-Id", "X-User-Name", "X-Webauth-User", "X-Webauth-Name", "Remote-User", "Remote-Name",
					"X-Forwarded-User", "X-Forwarded-Preferred-Username", "X-Auth-Request-User", "X-Auth-Request-Preferred-Username",
				} {
					wantDecoded(t, where, header, field, name)
				}
				wantDecoded(t, where, header, "X-Own", " "+name+" ")
			}
		})
	}
}

func wantDecoded(t *testing.T, where string, header http.Header, field, want string) {
	t.Helper()
	lines := header[field]
	if len(lines) != 1 {
		t.Fatalf("%s: %s: got %q, want one value", where, field, lines)
	}
	if got, err := url.PathUnescape(lines[0]); err != nil || got != want {
		t.Errorf("%s: %s: got %q (%q, %v), want %q", where, field, got, lines[0], err, want)
	}
}
