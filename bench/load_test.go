package main

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadResponseReadsExactlyOneResponse(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: Caddy\r\n\r\nhello"
	for _, c := range []struct {
		name, sent     string
		status, body   string
		wantsToBeWrong bool
	}{
		{name: "a whole answer", sent: good, status: "200", body: "hello"},
		{name: "no body", sent: "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", status: "401"},
		{name: "cut in the header", sent: good[:20], wantsToBeWrong: true},
		{name: "cut in the body", sent: good[:len(good)-1], wantsToBeWrong: true},
		{name: "more than the answer", sent: good + "HTTP", wantsToBeWrong: true},
		{name: "no length", sent: "HTTP/1.1 200 OK\r\n\r\n", wantsToBeWrong: true},
		{name: "a length below zero", sent: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", wantsToBeWrong: true},
		{name: "an absurd length", sent: "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", wantsToBeWrong: true},
		{name: "another protocol", sent: "SSH-2.0-x\r\n\r\n", wantsToBeWrong: true},
		{name: "an endless header", sent: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", maxMessage), wantsToBeWrong: true},
		{name: "nothing", sent: "", wantsToBeWrong: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"at once":      strings.NewReader(c.sent),
				"byte by byte": iotest.OneByteReader(strings.NewReader(c.sent)),
			} {
				if how == "byte by byte" && c.name == "more than the answer" {
					continue // what follows has not arrived yet
				}
				status, body, err := readAnswer(r, make([]byte, maxMessage))
				if (err != nil) != c.wantsToBeWrong {
					t.Fatalf("%s: the error is %v", how, err)
				}
				if err == nil && (string(status) != c.status || string(body) != c.body) {
					t.Errorf("%s: got %s and %q", how, status, body)
				}
			}
		})
	}
}

func TestUpstreamEchoesTheUserOfTheRequest(t *testing.T) {
	for _, c := range []struct{ name, request, want string }{
		{"nobody's", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", expectedAnswer(nobody, false)},
		{"plain Caddy's", "GET / HTTP/1.1\r\nHost: a\r\nCookie: app=1; tollgate=1.abc\r\n\r\n", expectedAnswer(nobody, true)},
		{"tollgate's", "GET / HTTP/1.1\r\nHost: a\r\nCookie: app=1\r\nX-User-Id: 1000007\r\n\r\n", expectedAnswer("1000007", false)},
		{"a leak", "GET / HTTP/1.1\r\nHost: a\r\nCookie: tollgate=1.abc\r\nX-User-Id: 1000007\r\n\r\n", expectedAnswer("1000007", true)},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := appendAnswer(nil, []byte(c.request))
			status, body, err := readAnswer(strings.NewReader(string(answer)), make([]byte, maxMessage))
			if err != nil || string(status) != "200" || string(body) != c.want {
				t.Errorf("got %s, %q, %v; want %q", status, body, err, c.want)
			}
		})
	}
}
