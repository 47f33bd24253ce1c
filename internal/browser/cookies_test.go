package browser

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// FuzzCookies: the upstream sees exactly the cookies that are not ours, in their
// order, and the session's value is bounded, whatever the counters say.
func FuzzCookies(f *testing.F) {
	for _, seed := range []string{
		"a=1; tollgate=1.x; b=2", "tollgate=2.x; tollgate-2=y", "tollgate=9.x", "tollgate-login-a=b;;; ;c", "tollgate=1.x; tollgate=1.y",
		" tollgate = 1.x ;a", "Tollgate=1.x", "=;=;tollgate", "a=\"tollgate=1.x; b\"", "tollgate-signed-out=1; tollgate-login-=", "tollgate-recent=9.x",
	} {
		f.Add(seed)
	}
	jar := &Jar{Name: "tollgate"}
	f.Fuzz(func(t *testing.T, line string) {
		header := http.Header{"Cookie": {line}}
		sent := jar.Take(header)
		var want, got []string
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(pair, "=")
			switch name = strings.Trim(name, " \t\r\n"); {
			case name == "tollgate", name == "tollgate-2", name == "tollgate-signed-out", name == "tollgate-recent", strings.HasPrefix(name, "tollgate-login-"):
			case strings.Trim(pair, " \t") != "":
				want = append(want, strings.Trim(pair, " \t"))
			}
		}
		for pair := range strings.SplitSeq(header.Get("Cookie"), ";") {
			if strings.Trim(pair, " \t") != "" {
				got = append(got, strings.Trim(pair, " \t"))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q: the upstream sees %q, want %q", line, got, want)
		}
		if value, ok := sent.SessionValue(); ok && len(value) > len(line) {
			t.Fatalf("%q: the session's value is %q", line, value)
		}
		if len(sent.Logins) > strings.Count(line, ";")+1 {
			t.Fatalf("%d logins are read from %q", len(sent.Logins), line)
		}
	})
}

func TestCookieAttributes(t *testing.T) {
	for _, c := range []struct {
		name string
		jar  Jar
		want string
	}{
		{"https", Jar{Name: "__Host-tollgate", Secure: true, SameSite: http.SameSiteLaxMode}, "__Host-tollgate=1.v; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"},
		{"plain http", Jar{Name: "tollgate", SameSite: http.SameSiteLaxMode}, "tollgate=1.v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"},
		{"a domain", Jar{Name: "__Secure-tollgate", Domain: "example.com", Secure: true, SameSite: http.SameSiteStrictMode}, "__Secure-tollgate=1.v; Path=/; Domain=example.com; Max-Age=60; HttpOnly; Secure; SameSite=Strict"},
		{"other frames'", Jar{Name: "x", Secure: true, SameSite: http.SameSiteNoneMode, Partitioned: true}, "x=1.v; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=None; Partitioned"},
	} {
		if got := c.jar.Session("v", time.Minute, false); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		removed := c.jar.Remove(c.jar.Name)
		if want := strings.Replace(strings.Replace(c.want, "=1.v;", "=;", 1), "Max-Age=60", "Max-Age=0", 1); removed != want {
			t.Errorf("%s: got the deletion %q, want %q", c.name, removed, want)
		}
		if login := c.jar.Login("f", "v"); !strings.Contains(login, "SameSite=Lax") || !strings.Contains(login, "Max-Age=86400") {
			t.Errorf("%s: got the login cookie %q, want SameSite=Lax and Max-Age=86400", c.name, login)
		}
	}
}

func TestSessionOfAnySizeFitsIntoTwoCookies(t *testing.T) {
	jar := Jar{Name: "__Host-tollgate", Secure: true, SameSite: http.SameSiteLaxMode}
	for size := 1; size <= keys.MaxSessionValue; size++ {
		if size > 100 && size < keys.MaxCookie-300 {
			continue
		}
		value := strings.Repeat("x", size-1) + "y"
		cookies := jar.Session(value, time.Hour, false)
		header := http.Header{}
		for _, line := range cookies {
			pair, _, _ := strings.Cut(line, ";")
			if len(pair)-1 > keys.MaxCookie {
				t.Fatalf("size %d: got a cookie of %d bytes, want at most %d", size, len(pair)-1, keys.MaxCookie)
			}
			header.Add("Cookie", pair)
		}
		sent := jar.Take(header)
		if got, ok := sent.SessionValue(); !ok || got != value {
			t.Fatalf("size %d: got %d bytes back, %v, want the same value", size, len(got), ok)
		}
		if len(cookies) > 2 {
			t.Fatalf("size %d: got %d cookies, want at most 2", size, len(cookies))
		}
	}
}

func TestChunksThatDoNotMatchAreNoSession(t *testing.T) {
	jar := Jar{Name: "tollgate"}
	for _, line := range []string{
		"tollgate=2.x", "tollgate-2=x", "tollgate=3.x; tollgate-2=y", "tollgate=x", "tollgate=", "tollgate=1", "tollgate=1.x; tollgate=1.y",
		"tollgate=1.x; tollgate=1.x", "tollgate=2.x; tollgate-2=y; tollgate-2=y", "tollgate=999999999.x", "tollgate=; tollgate=1.x",
		"tollgate=2." + strings.Repeat("x", keys.MaxCookie) + "; tollgate-2=" + strings.Repeat("y", 2*keys.MaxCookie),
	} {
		sent := jar.Take(http.Header{"Cookie": {line}})
		if value, ok := sent.SessionValue(); ok {
			t.Errorf("%.60q: got the session value %.60q, want none", line, value)
		}
	}
}

func TestThousandsOfCookiesAreRejectedCheaply(t *testing.T) {
	jar := Jar{Name: "tollgate"}
	var line strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&line, "tollgate-login-%d=x; other%d=y; ", i, i)
	}
	header := http.Header{"Cookie": {line.String()}}
	sent := jar.Take(header)
	if len(sent.Logins) != 5000 || strings.Contains(header.Get("Cookie"), "tollgate") || strings.Count(header.Get("Cookie"), "other") != 5000 {
		t.Errorf("got %d logins, and %d bytes for the upstream, want 5000 logins and the other cookies alone", len(sent.Logins), len(header.Get("Cookie")))
	}
	if _, ok := sent.SessionValue(); ok {
		t.Error("got a session, want none")
	}
	// No key is needed: none of these values is long enough to be opened.
	if pending := readLogins(nil, sent.Logins, "", time.Now()); len(pending.live) != 0 || len(pending.removals()) != maxRemovals {
		t.Errorf("got %d logins and %d removals, want 0 and %d", len(pending.live), len(pending.removals()), maxRemovals)
	}
}

func TestRemoveAllDeletesWhatTheBrowserHas(t *testing.T) {
	jar := Jar{Name: "tollgate"}
	many := ""
	for i := range maxRemovals + 5 {
		many += fmt.Sprintf("; %s=x", jar.LoginName(strconv.Itoa(i)))
	}
	for line, want := range map[string][]string{
		"":                          {"tollgate"},
		"tollgate=1.x":              {"tollgate"},
		"tollgate=2.x; tollgate-2=": {"tollgate", "tollgate-2"},
		"a=b; " + jar.recentName() + "=" + Recent{}.Next("/").String(): {"tollgate", jar.recentName()},
		"tollgate=1.x; " + jar.LoginName("f") + "=x":                   {"tollgate", jar.LoginName("f")},
	} {
		sent := jar.Take(http.Header{"Cookie": {line}})
		var got []string
		for _, cookie := range jar.RemoveAll(&sent) {
			parsed, err := http.ParseSetCookie(cookie)
			if err != nil || parsed.Value != "" || parsed.MaxAge >= 0 {
				t.Fatalf("%q: got %q, %v, want a deletion", line, cookie, err)
			}
			got = append(got, parsed.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got deletions of %v, want %v", line, got, want)
		}
	}
	sent := jar.Take(http.Header{"Cookie": {"tollgate=1.x" + many}})
	if n := len(jar.RemoveAll(&sent)); n != 1+maxRemovals {
		t.Errorf("got %d deletions, want the session's and %d of logins", n, maxRemovals)
	}
}
