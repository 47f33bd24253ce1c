package tollgate_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// forgeries are spellings under which an upstream may take a header for ours.
var forgeries = []string{
	"X-User-Id", "x-user-id", "X-USER-ID", "X_User_Id", "X.User.Id", "X~User~Id", "X--User-Id", "X-User--Id",
	"X|User|Id", "X-User_Id", "X!User!Id", "X-User-Name", "x_user_email", "X-User-Balance", "X_USER_BALANCE_STATE",
	"X-User-Used_Quota", "X-User-Balance.Age", "X'User'Quota",
}

// dial opens a bare connection to the gateway.
func dial(t *testing.T, s *gatewaytest.Site) net.Conn {
	t.Helper()
	u, _ := url.Parse(s.URL)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// rawRequest writes a request to the letter and reads its answer.
func rawRequest(t *testing.T, s *gatewaytest.Site, lines ...string) *http.Response {
	t.Helper()
	conn := dial(t, s)
	fmt.Fprintf(conn, "%s\r\n", strings.Join(lines, "\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", lines, err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res
}

func TestAForgedIdentityNeverReachesTheUpstream(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*\noptional /optional/*"})
	b := s.NewBrowser().SignIn()
	for _, path := range []string{"/protected", "/optional/a", "/public/a"} {
		for _, signedIn := range []bool{true, false} {
			for _, method := range []string{"GET", "OPTIONS", "POST"} {
				if path == "/protected" && !signedIn {
					continue // never reaches the upstream at all
				}
				for _, name := range forgeries {
					lines := []string{method + " " + path + " HTTP/1.1", "Host: gateway", "Content-Length: 0", name + ": forged-value"}
					if signedIn {
						lines = append(lines, b.CookieLine())
					}
					before := s.Upstream.Requests.Load()
					res := rawRequest(t, s, append(lines, "", "")...)
					if res.StatusCode == http.StatusBadRequest {
						continue // net/http refuses the name
					}
					if s.Upstream.Requests.Load() == before {
						t.Fatalf("%s %s %s never arrived: %d", method, path, name, res.StatusCode)
					}
					wantNoForgery(s, t, fmt.Sprintf("%s %s as %q", method, path, name))
				}
			}
		}
	}
}

// wantNoForgery looks at what the upstream received last.
func wantNoForgery(s *gatewaytest.Site, t *testing.T, what string) {
	t.Helper()
	seen := s.Upstream.Last.Load()
	for _, header := range []http.Header{seen.Header, seen.Trailer} {
		for name, values := range header {
			if strings.Contains(strings.Join(values, ","), "forged") {
				t.Errorf("%s reached the upstream as %s: %q", what, name, values)
			}
		}
	}
}

func TestConnectionCannotRemoveTheIdentity(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	for _, lines := range [][]string{
		{"Connection: X-User-Id"},
		{"Connection: close, x-user-id"},
		{"Connection: close", "Connection: X-User-Id, X-User-Name"},
		{"Connection: keep-alive,X_USER_ID , X-User-Id"},
		{"connection: Upgrade, X-User-Id", "Upgrade: websocket"},
	} {
		request := append([]string{"GET / HTTP/1.1", "Host: gateway", b.CookieLine()}, lines...)
		rawRequest(t, s, append(request, "", "")...)
		if got := s.Upstream.Last.Load().Header.Get("X-User-Id"); got != gatewaytest.UserID {
			t.Errorf("%q: the upstream saw the user id %q", lines, got)
		}
	}
}

func TestAForgedTrailerNeverReachesTheUpstream(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*"})
	b := s.NewBrowser().SignIn()
	for _, announced := range []string{"Trailer: X-User-Id, X-Good", "Trailer: X-Good", "X-None: 1"} {
		for _, path := range []string{"/", "/public/a"} {
			rawRequest(t, s,
				"POST "+path+" HTTP/1.1", "Host: gateway", b.CookieLine(), "Transfer-Encoding: chunked", announced, "",
				"3", "abc", "0", "X-User-Id: forged-value", "x_user_name: forged-value", "X-Good: good", "", "")
			wantNoForgery(s, t, announced)
			seen := s.Upstream.Last.Load()
			if seen.Body != "abc" {
				t.Errorf("%s: the body arrived as %q", announced, seen.Body)
			}
			if strings.HasPrefix(announced, "Trailer") && seen.Trailer.Get("X-Good") != "good" {
				t.Errorf("%s: a harmless trailer was lost: %v", announced, seen.Trailer)
			}
		}
	}
}

func TestTheUpstreamSeesAllCookiesButOurs(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*"})
	b := s.NewBrowser().SignIn()
	session := "tollgate=" + b.Cookies()["tollgate"]
	for sent, want := range map[string]string{
		"a=1; " + session + "; b=\"x y\"; c": "a=1; b=\"x y\"; c",
		session:                              "",
		session + ";d=4":                     "d=4",
		"Tollgate=kept; " + session:          "Tollgate=kept",
		"tollgate-login-abc=x; e=5; tollgate-2=y; " + session:       "e=5",
		"tollgatex=kept; my-tollgate=kept;" + session + "; f=%20==": "tollgatex=kept; my-tollgate=kept; f=%20==",
		"g=1;h=2": "g=1;h=2",
	} {
		for _, path := range []string{"/", "/public/a"} {
			if path == "/" && !strings.Contains(sent, session) {
				continue
			}
			rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", "Cookie: "+sent, "", "")
			if got := s.Upstream.Last.Load().Header.Get("Cookie"); got != want {
				t.Errorf("%s: sent %q, the upstream saw %q, want %q", path, sent, got, want)
			}
		}
	}
}

func TestEveryPresetSetsAllItsHeaders(t *testing.T) {
	const name = "%E5%BC%A0%E4%BC%9F" // 张伟
	for preset, want := range map[string]map[string]string{
		"default":      {"X-User-Id": "24680", "X-User-Name": name, "X-User-Email": "", "X-User-Balance": "0.00", "X-User-Balance-State": "fresh", "X-User-Balance-Age": "0"},
		"webauth":      {"X-Webauth-User": name, "X-Webauth-Email": "", "X-Webauth-Name": name},
		"remote":       {"Remote-User": name, "Remote-Name": name, "Remote-Email": ""},
		"forwarded":    {"X-Forwarded-User": "24680", "X-Forwarded-Email": "", "X-Forwarded-Preferred-Username": name},
		"auth_request": {"X-Auth-Request-User": "24680", "X-Auth-Request-Email": "", "X-Auth-Request-Preferred-Username": name},
	} {
		t.Run(preset, func(t *testing.T) {
			options := gatewaytest.Options{InTollgate: "identity " + preset}
			options.Provider.AutoLogin = "张伟"
			s := gatewaytest.New(t, options)
			seen := s.NewBrowser().Follow("/").Seen(t)
			for header, value := range want {
				if got, ok := seen.Header[header]; !ok || len(got) != 1 || got[0] != value {
					t.Errorf("%s: got %q, want %q", header, got, value)
				}
			}
			if _, other := seen.Header["X-User-Id"]; other != (preset == "default") {
				t.Errorf("X-User-Id is set: got %v, want %v", other, !other)
			}
		})
	}
}

func TestOwnHeadersExpandOperatorTextOnce(t *testing.T) {
	options := gatewaytest.Options{InTollgate: `identity none {
			header x-who "{http.auth.user.id} is {http.auth.user.username} on {http.request.method}"
			header X-Balance {http.auth.user.balance}/{http.auth.user.balance_state}
		}`}
	const name = "{env.HOME}é%"
	options.Provider.AutoLogin = name
	options.Provider.Users = []simulator.User{{ID: 12345, Username: name, BalanceCents: 75000, Status: 1}}
	s := gatewaytest.New(t, options)
	seen := s.NewBrowser().Follow("/").Seen(t)
	if got, want := seen.Header.Get("X-Who"), "12345 is {env.HOME}%C3%A9%25 on GET"; got != want {
		t.Errorf("X-Who: got %q, want %q", got, want)
	}
	if got := seen.Header.Get("X-Balance"); got != "750.00/fresh" {
		t.Errorf("X-Balance: got %q", got)
	}
	if got, ok := seen.Header["X-User-Id"]; ok {
		t.Errorf("with the preset none: got X-User-Id %q, want no such header", got)
	}
}

func TestPlaceholdersAreSetForLaterDirectivesAndEmptyIfAnonymous(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "public /public/*\noptional /optional/*",
		Before: `header X-Seen "[{http.auth.user.id}][{http.auth.user.email}][{http.auth.user.balance}][{http.auth.user.quota}][{http.auth.user.used_quota}][{http.auth.user.status}][{http.auth.user.balance_age}]"
	header >X-Session "{http.auth.user.session}"
	header >X-Seen "[{http.auth.user.id}][{http.auth.user.email}][{http.auth.user.balance}][{http.auth.user.quota}][{http.auth.user.used_quota}][{http.auth.user.status}][{http.auth.user.balance_age}]"`,
	})
	b := s.NewBrowser().SignIn()
	a := b.Get("/")
	if got, want := a.Header.Get("X-Seen"), "[12345][user@example.com][750.00][375000000][125000000][1][0]"; got != want {
		t.Errorf("signed in: got %q, want %q", got, want)
	}
	if hash := a.Header.Get("X-Session"); len(hash) != 32 {
		t.Errorf("the session's hash is %q", hash)
	}
	for _, path := range []string{"/public/a", "/optional/a"} {
		if got, want := s.NewBrowser().Get(path).Header.Get("X-Seen"), "[][][][][][][]"; got != want {
			t.Errorf("%s as anonymous: got %q, want %q", path, got, want)
		}
	}
}

func TestIdentityReplacesThatOfAnEarlierDirective(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Before: `vars x 1
	header >X-Seen "{http.auth.user.id}"
	basic_auth {
		Bob $2a$04$Y380f91/8SxbmbcZsoALzumQwgb.AYzSEewm1Nj0VadIY6dLN6YtO
	}`, InTollgate: "optional /optional/*"})
	b := s.NewBrowser()
	basic := "Authorization: Basic Qm9iOmhpY2N1cA==" // Bob:hiccup
	a := b.Visit("/", basic)
	for a.StatusCode == http.StatusFound || a.StatusCode == http.StatusSeeOther {
		next, _ := a.Request.URL.Parse(a.Location())
		a = b.Visit(next.String(), basic)
	}
	if got := a.Header.Get("X-Seen"); got != gatewaytest.UserID {
		t.Errorf("signed in after basic_auth: the user is %q, want %q (status %d)", got, gatewaytest.UserID, a.StatusCode)
	}
}

func TestAForgedTrailerOverHTTP2NeverReachesTheUpstream(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*"})
	front := httptest.NewUnstartedServer(s.Server)
	front.EnableHTTP2 = true
	front.StartTLS()
	defer front.Close()
	body, writer := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, front.URL+"/public/a", body)
	req.Trailer = http.Header{"X-User-Id": nil, "X_user_name": nil, "X-Good": nil}
	go func() {
		writer.Write([]byte("abc"))
		req.Trailer["X-User-Id"] = []string{"forged-value"}
		req.Trailer["X_user_name"] = []string{"forged-value"}
		req.Trailer["X-Good"] = []string{"good"}
		writer.Close()
	}()
	res, err := front.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	seen := s.Upstream.Last.Load()
	if res.ProtoMajor != 2 || seen.Body != "abc" || seen.Trailer.Get("X-Good") != "good" {
		t.Errorf("%s: the body %q, the trailers %v", res.Proto, seen.Body, seen.Trailer)
	}
	wantNoForgery(s, t, "HTTP/2")
}

func TestOnlyWebSocketIsPassedOnAsAnUpgrade(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*"})
	for upgrade, passes := range map[string]bool{"websocket": true, "WebSocket": true, "h2c": false, "h2c, websocket": false, "TLS/1.0": false} {
		rawRequest(t, s, "GET /public/a HTTP/1.1", "Host: gateway", "Connection: Upgrade, HTTP2-Settings", "Upgrade: "+upgrade, "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "", "")
		seen := s.Upstream.Last.Load().Header
		if (seen.Get("Upgrade") != "") != passes || seen.Get("Http2-Settings") != "" {
			t.Errorf("%s: the upstream saw %v", upgrade, seen)
		}
	}
}
