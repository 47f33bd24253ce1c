package tollgate

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// FuzzAccess: whatever an upstream takes a path for, it never reads one that passes
// as public, or without the rules of /admin, as one below /admin, or as an endpoint of
// ours.
func FuzzAccess(f *testing.F) {
	for _, seed := range []string{
		"/public/a", "/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/..%5cadmin", "/public/..;/admin",
		"/public/%252e%252e%252fadmin", "/public/x%00/../../admin", "//public/a", "/public/./%2e%2e//admin", "/oauth/logout", "/public/..%2foauth/start", "/a%3b/../public/..;x/admin",
		"//x/admin", "//u@x:80/admin", "/%2fx/admin", "/admin%0a", "/public/..%0a",
	} {
		f.Add(seed)
	}
	rt, err := newRoutes(caddy.Context{}, map[string]string{"start": "/oauth/start", "logout": "/oauth/logout"}, []string{"/public/*", "*.css"}, []string{"/optional/*"},
		[]string{"/admin", "/admin/*"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Path == "" || u.Path[0] != '/' {
			return
		}
		r, err := http.NewRequest(http.MethodGet, "http://gateway/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = u
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, &caddyhttp.Server{})
		name, ok := rt.Endpoint(originalURL(r))
		if !ok {
			return
		}
		asked, ok := rt.Demand(originalURL(r), r)
		if !ok {
			return
		}
		access := asked.Access
		for _, read := range upstreamReadings(u) {
			lower := strings.ToLower(read)
			if access != policy.AccessPublic && asked.Blocks == 0 && (lower == "/admin" || strings.HasPrefix(lower, "/admin/")) {
				t.Fatalf("%q passes without the rules, and an upstream reads %q", target, read)
			}
			if access == policy.AccessPublic && (lower == "/admin" || strings.HasPrefix(lower, "/admin/")) && !strings.HasSuffix(lower, ".css") {
				t.Fatalf("%q passes as public, and an upstream reads %q", target, read)
			}
			if name == "" && (read == "/oauth/start" || read == "/oauth/logout") {
				t.Fatalf("%q is none of ours, and an upstream reads %q", target, read)
			}
		}
	})
}

// FuzzTwoPaths: whatever a rewrite makes of a path, the decision about both is never
// weaker than the decision about either of them alone, and for one path it is the one
// that was made before there were two.
func FuzzTwoPaths(f *testing.F) {
	f.Add("/api/pay", "/pay", "/public/*", "/optional/*", "/api/*", "/pay")
	f.Add("/secret/a", "/public/secret/a", "/public/*", "/s*", "/secret/*", "*")
	f.Add("/public/..%2fadmin", "/public/a", "/public/*", "/a", "/admin/*", "/x")
	f.Add("/a", "//a", "*.css", "/A", "*a*", "/a/*/b")
	f.Add("/index.php/a", "/index.php", "/index.php", "/*", "/admin*", "/index.php/*")
	f.Fuzz(func(t *testing.T, sent, current, public, optional, first, second string) {
		rt := fuzzedRoutes(public, optional, first, second)
		original, err := url.ParseRequestURI(sent)
		here, err2 := url.ParseRequestURI(current)
		if rt == nil || err != nil || err2 != nil {
			return
		}
		both, ok := rt.Demand(original, requestAt(here))
		byOriginal, okOriginal := decideByOnePath(rt, original)
		byCurrent, okCurrent := decideByOnePath(rt, here)
		switch {
		case *original == *here:
			if both != byCurrent || ok != okCurrent {
				t.Fatalf("%q: got %+v, %v, want %+v, %v", sent, both, ok, byCurrent, okCurrent)
			}
		case ok && (!okOriginal || !okCurrent):
			t.Fatalf("%q became %q: got %+v, and one of them is ambiguous", sent, current, both)
		case !ok:
			return // it is refused
		case both.Access != min(byOriginal.Access, byCurrent.Access):
			t.Fatalf("%q became %q: got the access %v of %v and %v", sent, current, both.Access, byOriginal.Access, byCurrent.Access)
		case both.Access == policy.AccessPublic && both.Blocks != 0:
			t.Fatalf("%q became %q: a public path has the rules %b", sent, current, both.Blocks)
		}
		if want := byOriginal.Blocks | byCurrent.Blocks; both.Blocks&want != want {
			t.Fatalf("%q became %q: got the rules %b of %b and %b", sent, current, both.Blocks, byOriginal.Blocks, byCurrent.Blocks)
		}
		if swapped, okSwapped := rt.Demand(here, requestAt(original)); swapped != both || okSwapped != ok {
			t.Fatalf("%q and %q: got %+v, and %+v the other way round", sent, current, both, swapped)
		}
	})
}

// fuzzedRoutes are routes with these patterns, or nil if an operator cannot write them.
func fuzzedRoutes(public, optional, first, second string) *policy.Routes {
	r := &config.Resolver{Repl: caddy.NewReplacer()}
	patterns := r.Patterns("", []string{public, optional, first, second})
	if r.Err != nil || strings.Contains(public+optional+first+second, "{") {
		return nil
	}
	rt, err := newRoutes(caddy.Context{}, nil, patterns[:1], patterns[1:2], patterns[2:3], patterns[3:])
	if err != nil {
		return nil
	}
	return rt
}

// requestAt is a request of which a directive has set the URL.
func requestAt(u *url.URL) *http.Request {
	r := &http.Request{Method: http.MethodGet, URL: u}
	return r.WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
}

// decideByOnePath is the decision as it was before there were two paths, written apart
// from the code under test.
func decideByOnePath(rt *policy.Routes, u *url.URL) (d policy.Demand, ok bool) {
	forms, complete := []string{u.Path}, true
	if !policy.IsOrdinary(u) {
		forms, complete = policy.Readings(u)
	}
	if !complete {
		return policy.Demand{}, false
	}
	var decided []policy.Demand
	for _, form := range forms {
		cleaned := requestAt(&url.URL{Path: form})
		for _, d := range []policy.Demand{{Access: rt.CleanAccess(cleaned), Blocks: rt.CleanBlocks(cleaned)}, {Access: rt.LiteralAccess(form), Blocks: rt.LiteralBlocks(form)}} {
			if d.Access == policy.AccessPublic {
				d.Blocks = 0
			}
			decided = append(decided, d)
		}
	}
	if policy.IsOrdinary(u) {
		return decided[0], true
	}
	if slices.ContainsFunc(decided, func(d policy.Demand) bool { return d != decided[0] }) {
		return policy.Demand{}, false
	}
	return decided[0], true
}

// FuzzForwardedURL: whatever a proxy's headers say, what comes of them is a path of
// this origin, decided as the same path of a request would be, or a refusal.
func FuzzForwardedURL(f *testing.F) {
	const external = "https://app.example.com"
	f.Add("/page?a=1&b=2", "", "", 1)
	f.Add("/public/..%2fadmin", "https://app.example.com/public/..%2fadmin", "", 3)
	f.Add("//evil.example", "https://evil.example/x", "/\\evil.example", 7)
	f.Add("*", "javascript:alert(1)", "https:/x", 5)
	f.Add("/a%zz", "http://app.example.com:80", "/.//x", 6)
	f.Fuzz(func(t *testing.T, uri, original, redirect string, sent int) {
		header := http.Header{}
		for i, value := range []string{uri, original, redirect} {
			if sent>>i&1 == 1 {
				header[policy.OriginalURLHeaders[i]] = []string{value}
			}
		}
		u, ok := policy.ForwardedURL(header)
		if !ok {
			return
		}
		if u == nil {
			if len(header) > 0 {
				t.Fatalf("%q says nothing", header)
			}
			return
		}
		if u.Path == "" || u.Path[0] != '/' || u.User != nil || u.Opaque != "" || (u.Host != "" && u.Scheme != "https" && u.Scheme != "http") {
			t.Fatalf("%q becomes %q", header, u)
		}
		for name, lines := range header {
			full, host := lines[0], ""
			if i := strings.Index(full, "://"); i > 0 && full[0] != '/' {
				full, host = full[i+3:], "x"
			}
			if at := strings.IndexAny(full, "/?"); host != "" && at >= 0 {
				full = full[at:]
			} else if host != "" {
				full = "/"
			}
			if path, _, _ := strings.Cut(full, "?"); path != u.EscapedPath() && path != "" && escapedAlike(path) != escapedAlike(u.EscapedPath()) {
				t.Fatalf("%s: %q is taken for %q", name, lines[0], u.EscapedPath())
			}
		}
		page := policy.ForwardedPath(u, external)
		if page != "" && (page[0] != '/' || u.Host != "" && !strings.HasPrefix(strings.ToLower(u.Host), "app.example.com")) {
			t.Fatalf("%q leads to %q", header, page)
		}
		if cleaned, ok := origin.CleanPath(page); ok {
			read, err := url.Parse(external + "/")
			if err != nil {
				t.Fatal(err)
			}
			if target, err := read.Parse(strings.ReplaceAll(cleaned, `\`, "/")); err == nil && target.Host != "app.example.com" {
				t.Fatalf("%q leads to %q", header, cleaned)
			}
		}
	})
}

// escapedAlike is a path in one spelling, decoded where that can be done.
func escapedAlike(path string) string {
	if decoded, err := url.PathUnescape(path); err == nil {
		return decoded
	}
	return path
}

// upstreamReadings are ways in which servers read a path, written apart from the
// code under test.
func upstreamReadings(u *url.URL) []string {
	decoded, err := url.PathUnescape(u.EscapedPath())
	if err != nil {
		decoded = u.Path
	}
	twice, err := url.PathUnescape(decoded)
	if err != nil {
		twice = decoded
	}
	parameters := regexp.MustCompile(`;[^/]*`)
	var read []string
	for _, p := range []string{decoded, twice, parameters.ReplaceAllString(decoded, ""), strings.ReplaceAll(decoded, `\`, "/")} {
		read = append(read, p, path.Clean(p), strings.TrimSuffix(p, "\n"))
		if relative, err := url.Parse(p); err == nil && strings.HasPrefix(p, "//") {
			read = append(read, relative.Path)
		}
	}
	return read
}

// FuzzSessionRecord: what reads as a record, is written and read back the same.
func FuzzSessionRecord(f *testing.F) {
	f.Add(sampleSession(20).AppendBinary(nil))
	f.Add([]byte{session.RecordVersion})
	f.Add([]byte{session.RecordVersion + 1})
	f.Add(bytes.Repeat([]byte{0xff}, 80))
	f.Fuzz(func(t *testing.T, record []byte) {
		s, err := session.ParseSession(record)
		if err != nil {
			return
		}
		again, err := session.ParseSession(s.AppendBinary(nil))
		if err != nil || *again != *s {
			t.Fatalf("%x reads as %+v, and then as %+v, %v", record, s, again, err)
		}
	})
}

// FuzzLoginRecord: what reads as a login is written and read back the same, and an
// expired one, or one from the future, is none.
func FuzzLoginRecord(f *testing.F) {
	now := time.UnixMilli(1_700_000_000_000)
	f.Add(browser.NewLogin("/page?x", true, "nonce", now).AppendBinary(nil), int64(0))
	f.Add([]byte{browser.LoginVersion, 0}, int64(5))
	f.Fuzz(func(t *testing.T, record []byte, later int64) {
		l, ok := browser.ParseLogin(record)
		if !ok {
			return
		}
		again, ok := browser.ParseLogin(l.AppendBinary(nil))
		if !ok || *again != *l {
			t.Fatalf("%x reads as %+v, and then as %+v, %v", record, l, again, ok)
		}
		at := now.Add(time.Duration(later))
		if age := at.Sub(l.Started); !l.Expired(at) && (age >= browser.LoginLifetime || age < -time.Minute) {
			t.Fatalf("a login of %v is still good", age)
		}
	})
}

// FuzzCookies: the upstream sees exactly the cookies that are not ours, in their
// order, and the session's value is bounded, whatever the counters say.
func FuzzCookies(f *testing.F) {
	for _, seed := range []string{
		"a=1; tollgate=1.x; b=2", "tollgate=2.x; tollgate-2=y", "tollgate=9.x", "tollgate-login-a=b;;; ;c", "tollgate=1.x; tollgate=1.y",
		" tollgate = 1.x ;a", "Tollgate=1.x", "=;=;tollgate", "a=\"tollgate=1.x; b\"", "tollgate-signed-out=1; tollgate-login-=", "tollgate-recent=9.x",
	} {
		f.Add(seed)
	}
	jar := &browser.Jar{Name: "tollgate"}
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

// FuzzCallback: a callback is acted on only with each parameter once, and with all
// that is needed.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{"code=c&state=s", "state=s&state=t", "error=e&state=s", "code=&state=", "code=c&state=s&iss=i&iss=j", "a;b", "%zz", "code=c&Code=d&state=s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, _ := url.ParseQuery(query)
		answer, cause := parseCallback(values)
		if cause != "" {
			if answer != (callbackAnswer{}) || (cause != "missing_parameters" && cause != "invalid_state") {
				t.Fatalf("%q: %+v with the cause %q", query, answer, cause)
			}
			return
		}
		for name, value := range map[string]string{"code": answer.code, "state": answer.state, "error": answer.errorCode, "iss": answer.issuer} {
			if n := len(values[name]); n > 1 || (n == 1 && values[name][0] != value) || (n == 0 && value != "") {
				t.Fatalf("%q: %s is %q of %q", query, name, value, values[name])
			}
		}
		if answer.errorCode == "" && (answer.code == "" || answer.state == "") {
			t.Fatalf("%q passes", query)
		}
	})
}

var notAlphanumeric = regexp.MustCompile(`[^A-Za-z0-9]+`)

// foldedAlike is the fold of header names, written apart from the code under test.
func foldedAlike(name string) string {
	return strings.ToLower(notAlphanumeric.ReplaceAllString(name, "-"))
}

// FuzzStrip: no header field, trailer or Connection token is left that folds to one
// of ours, and all others are.
func FuzzStrip(f *testing.F) {
	for _, seed := range forgeries {
		f.Add(seed, "keep-alive, "+seed)
	}
	f.Add("X-Other", "close,, X-Other ,")
	headers, err := identity.NewHeaders([]string{"default", "remote"}, map[string]string{"x-own": "1"})
	if err != nil {
		f.Fatal(err)
	}
	ours := map[string]bool{}
	for _, h := range append(slices.Clone(identity.Presets["default"]), identity.Presets["remote"]...) {
		ours[foldedAlike(h.Name)] = true
	}
	ours["x-own"] = true
	f.Fuzz(func(t *testing.T, name, connection string) {
		r := &http.Request{Header: http.Header{name: {"x"}, "X-Kept": {"x"}}, Trailer: http.Header{name: {"x"}}}
		if name != "Connection" {
			r.Header["Connection"] = []string{connection, name}
		}
		headers.Strip(r)
		forged := ours[foldedAlike(name)]
		if _, left := r.Header[name]; name != "Connection" && left == forged {
			t.Fatalf("%q is left: %v", name, left)
		}
		if _, left := r.Trailer[name]; left == forged {
			t.Fatalf("%q is left in the trailers: %v", name, left)
		}
		if _, left := r.Header["X-Kept"]; !left {
			t.Fatal("another header is lost")
		}
		if name == "Connection" {
			return
		}
		left := map[string]bool{}
		for _, line := range r.Header["Connection"] {
			for token := range strings.SplitSeq(line, ",") {
				left[strings.Trim(token, " \t\r\n")] = true
			}
		}
		for token := range strings.SplitSeq(connection+","+name, ",") {
			token = strings.Trim(token, " \t\r\n")
			if token != "" && left[token] == ours[foldedAlike(token)] {
				t.Fatalf("Connection %q, %q becomes %q", connection, name, r.Header["Connection"])
			}
		}
	})
}

// FuzzCaddyfile: what is accepted is a configuration that loads again from its JSON.
func FuzzCaddyfile(f *testing.F) {
	f.Add(minimalBlock)
	f.Add(full)
	f.Add(minimalBlock + "session {\nstore cookie\n}\nidentity none {\nheader X {y}\n}")
	f.Add("provider {\n}\nprovider")
	f.Add("secret {env.X}\npublic\n}")
	f.Fuzz(func(t *testing.T, block string) {
		if strings.Contains(block, "{file.") || strings.Contains(block, "{$") {
			return // which would read this machine's files and environment
		}
		var h Handler
		if h.UnmarshalCaddyfile(caddyfile.NewTestDispenser("tollgate {\n"+block+"\n}")) != nil {
			return
		}
		text, err := json.Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		var again Handler
		if err := caddy.StrictUnmarshalJSON(text, &again); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if twice, _ := json.Marshal(&again); !bytes.Equal(twice, text) {
			t.Fatalf("%s becomes %s", text, twice)
		}
	})
}

// FuzzRecord: what is read as a record is written as the same one, its revision is what
// stores compare, and it opens under its own name with its own key only.
func FuzzRecord(f *testing.F) {
	name := sampleSession(1).ID.Hash()
	sealed, err := records.SealRecord(session.RecordKey{1}, name, sampleSession(20).AppendBinary(nil))
	if err != nil {
		f.Fatal(err)
	}
	good := records.Record{Head: session.Head{Revision: 3, Expires: time.UnixMilli(1), User: "abc", Kind: session.RecordLive}, Sealed: sealed}
	f.Add(good.String())
	f.Add("1 1 0 0 0 0 - gone\n")
	f.Add("1 18446744073709551615 -1 -1 -1 -1 x moved\n\n")
	f.Add("2 1 0 0 0 0 - live\nx")
	f.Add("1 +1 0 0 0 0 - live\nx")
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := records.ParseRecord(text)
		if !ok {
			return
		}
		again, ok := records.ParseRecord(r.String())
		if !ok || *again != *r {
			t.Fatalf("%q reads as %+v, and then as %+v", text, r, again)
		}
		if revision, ok := records.RevisionOf(text); !ok || revision != r.Revision {
			t.Fatalf("%q: stores compare revision %d, and it has %d", text, revision, r.Revision)
		}
		if _, opens := records.OpenRecord(session.RecordKey{2}, name, r.Sealed); opens {
			t.Fatalf("%q opens with another key", text)
		}
		if _, opens := records.OpenRecord(session.RecordKey{1}, "another name", r.Sealed); opens {
			t.Fatalf("%q opens under another name", text)
		}
		if plain, opens := records.OpenRecord(session.RecordKey{1}, name, r.Sealed); opens != (r.Sealed == sealed) || (opens && len(plain) == 0) {
			t.Fatalf("%q opens: %v", text, opens)
		}
	})
}

// FuzzTicket: a ticket has one form, and nothing else is one.
func FuzzTicket(f *testing.F) {
	f.Add(records.Ticket{ID: session.ID{1}, Key: session.RecordKey{2}}.AppendBinary(nil))
	f.Add([]byte{records.TicketVersion})
	f.Add(bytes.Repeat([]byte{0xff}, 49))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tk, ok := records.ParseTicket(b); ok && !bytes.Equal(tk.AppendBinary(nil), b) {
			t.Fatalf("%x reads as %+v", b, tk)
		}
	})
}
