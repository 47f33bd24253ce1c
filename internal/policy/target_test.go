package policy

import (
	"net/url"
	"testing"
)

func TestTargetIsDecidedByMethodAndBothPaths(t *testing.T) {
	parse := func(target string) *url.URL {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, c := range []struct {
		method            string
		webSocket         bool
		original, current *url.URL
		want              Target
	}{
		{"GET", false, parse("/a"), parse("/b"), TargetOK},
		{"CONNECT", true, parse("/a"), parse("/a"), TargetOK},
		{"CONNECT", false, parse("/a"), parse("/a"), TargetMethod},
		{"TRACE", true, parse("/a"), parse("/a"), TargetMethod},
		{"GET", false, parse("http://host"), parse("/b"), TargetOK},
		{"GET", false, parse("/a"), &url.URL{}, TargetOK},
		{"GET", false, &url.URL{}, parse("/a"), TargetNoPath},
		{"GET", false, parse("a:http://x/api"), parse("/a"), TargetNoPath},
		{"GET", false, parse("/a"), parse("a:http://x/api"), TargetNoPath},
		{"GET", false, parse("/a"), &url.URL{Path: "a"}, TargetNoPath},
		{"OPTIONS", false, parse("*"), parse("*"), TargetNoPath},
	} {
		if got := JudgeTarget(c.method, c.webSocket, c.original, c.current); got != c.want {
			t.Errorf("%s %v, %q, %q: got %v, want %v", c.method, c.webSocket, c.original, c.current, got, c.want)
		}
	}
}
