package policy

import (
	"net/http"
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
		host              string
		want              Target
	}{
		{"GET", false, parse("/a"), parse("/b"), "host", TargetOK},
		{"CONNECT", true, parse("/a"), parse("/a"), "host", TargetOK},
		{"CONNECT", false, parse("/a"), parse("/a"), "host", TargetMethod},
		{"TRACE", true, parse("/a"), parse("/a"), "host", TargetMethod},
		{"GET", false, parse("http://host"), parse("/b"), "host", TargetOK},
		{"GET", false, parse("/a"), &url.URL{}, "host", TargetOK},
		{"GET", false, &url.URL{}, parse("/a"), "host", TargetNoPath},
		{"GET", false, parse("a:http://x/api"), parse("/a"), "host", TargetNoPath},
		{"GET", false, parse("/a"), parse("a:http://x/api"), "host", TargetNoPath},
		{"GET", false, parse("/a"), &url.URL{Path: "a"}, "host", TargetNoPath},
		{"OPTIONS", false, parse("*"), parse("*"), "host", TargetNoPath},
		{"GET", false, parse("/a"), parse("/a"), "host/x", TargetHost},
		{"GET", false, parse("/a"), &url.URL{Path: "a"}, "host/x", TargetNoPath},
	} {
		r := &http.Request{Method: c.method, URL: c.current, Host: c.host, ProtoMajor: 2, Header: http.Header{}}
		if c.webSocket {
			r.Header[":protocol"] = []string{"websocket"}
		}
		got := JudgeTarget(r, c.original)
		if got != c.want {
			t.Errorf("%s %v, %q, %q: got %v, want %v", c.method, c.webSocket, c.original, c.current, got, c.want)
		}
		if got == TargetOK && (c.original.Path == "" || c.current.Path == "") {
			t.Errorf("%s %q, %q: an empty path is left, want \"/\"", c.method, c.original, c.current)
		}
	}
}
