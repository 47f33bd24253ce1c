package identity

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var notAlphanumeric = regexp.MustCompile(`[^A-Za-z0-9]+`)

// foldedAlike is the fold of header names, written apart from the code under test.
func foldedAlike(name string) string {
	return strings.ToLower(notAlphanumeric.ReplaceAllString(name, "-"))
}

// FuzzStrip: no header field, trailer or Connection token is left that folds to one
// of ours, and all others are.
func FuzzStrip(f *testing.F) {
	for _, seed := range []string{
		"X-User-Id", "x_user_id", "X.User.Id", "X--User-Id", "X|User|Id", "X-User_Id", "X-User-Used_Quota", "X-User-Balance.Age", "X'User'Quota",
	} {
		f.Add(seed, "keep-alive, "+seed)
	}
	f.Add("X-Other", "close,, X-Other ,")
	headers, err := NewHeaders([]string{"default", "remote"}, map[string]string{"x-own": "1"})
	if err != nil {
		f.Fatal(err)
	}
	ours := map[string]bool{}
	for _, h := range append(slices.Clone(Presets["default"]), Presets["remote"]...) {
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
