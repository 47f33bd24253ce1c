package oauth

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/cause"
)

// TestSlowResponsesEndWithTheTimeout: one byte now and then keeps no request
// open for longer than the timeout, and costs no memory to speak of.
func TestSlowResponsesEndWithTheTimeout(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write([]byte(" ")); err != nil {
				return
			}
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}))
	defer server.Close()
	client := tokenEndpoint(t, 200, "")
	client.Timeout = 300 * time.Millisecond
	client.Config.Endpoint.TokenURL, client.UserinfoEndpoint, client.TopupEndpoint = server.URL, server.URL, server.URL
	for _, c := range []struct {
		name string
		ask  func() error
	}{
		{"token", func() error { _, err := client.Refresh(t.Context(), Tokens{Refresh: "r"}); return err }},
		{"userinfo", func() error { _, err := client.UserInfo(t.Context(), "a"); return err }},
		{"topup", func() error { _, err := client.TopupURL(t.Context(), "a"); return err }},
	} {
		began := time.Now()
		if err := c.ask(); err == nil || FailureOf(err) == FailureEnded || time.Since(began) > 5*time.Second {
			t.Errorf("%s: got %v after %v, want a timeout that ends no session", c.name, err, time.Since(began))
		} else if got := cause.Of(err); got != cause.Timeout {
			t.Errorf("%s: got cause %q for %q, want timeout", c.name, got, err)
		}
	}
}

func TestASilentProviderIsATimeout(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client leaves
		<-r.Context().Done()
	}))
	defer server.Close()
	client := tokenEndpoint(t, 200, "")
	client.Timeout = 200 * time.Millisecond
	client.Config.Endpoint.TokenURL, client.UserinfoEndpoint = server.URL, server.URL
	_, tokenErr := client.Refresh(t.Context(), Tokens{Refresh: "r"})
	_, userErr := client.UserInfo(t.Context(), "a")
	for _, err := range []error{tokenErr, userErr} {
		if cause.Of(err) != cause.Timeout || !strings.Contains(err.Error(), "timeout") {
			t.Errorf("got cause %q, text %q, want timeout", cause.Of(err), err)
		}
	}
	if FailureOf(tokenErr) != FailureUnanswered {
		t.Errorf("got %v, want unanswered: the token may be used up", FailureOf(tokenErr))
	}
}

func TestEachFailureHasItsCause(t *testing.T) {
	for name, c := range map[string]struct {
		err  *Error
		want string
	}{
		"token 500":      {&Error{Endpoint: EndpointToken, Status: 500}, cause.TemporarilyUnavailable},
		"token 503":      {&Error{Endpoint: EndpointToken, Status: 503}, cause.TemporarilyUnavailable},
		"token 408":      {&Error{Endpoint: EndpointToken, Status: 408}, cause.TemporarilyUnavailable},
		"token 429":      {&Error{Endpoint: EndpointToken, Status: 429}, cause.RateLimited},
		"token 401":      {&Error{Endpoint: EndpointToken, Status: 401}, cause.InvalidClient},
		"token 404":      {&Error{Endpoint: EndpointToken, Status: 404}, cause.InvalidResponse},
		"token redirect": {&Error{Endpoint: EndpointToken, Status: 302}, cause.InvalidResponse},
		"code":           {&Error{Endpoint: EndpointToken, Status: 503, Code: "invalid_grant"}, cause.InvalidGrant},
		"no response":    {&Error{Endpoint: EndpointToken}, cause.Unreachable},
		"userinfo 401":   {&Error{Endpoint: EndpointUserinfo, Status: 401, Kind: FailureUnauthorized}, cause.UserinfoDenied},
		"userinfo no id": {&Error{Endpoint: EndpointUserinfo, Status: 200, Kind: FailureUnauthorized}, cause.UserinfoDenied},
		"userinfo 403":   {&Error{Endpoint: EndpointUserinfo, Status: 403, Kind: FailureRefused}, cause.UserinfoDenied},
		"userinfo 404":   {&Error{Endpoint: EndpointUserinfo, Status: 404, Kind: FailureRefused}, cause.InvalidResponse},
		"userinfo 429":   {&Error{Endpoint: EndpointUserinfo, Status: 429}, cause.RateLimited},
	} {
		if got := cause.Of(c.err); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	for code, meaning := range tokenErrorCodes {
		if _, known := cause.Find(meaning.name); meaning.name != "" && !known {
			t.Errorf("%s: %q is no cause", code, meaning.name)
		}
	}
}

func TestErrorDoesNotQuoteTheResponse(t *testing.T) {
	for _, response := range []string{
		`{"access_token":"PLANTED","refresh_token":"PLANTED"}`,
		"HTTP/1.1 200 OK\r\nX PLANTED\r\n\r\n",
		"HTTP/1.1 PLANTED\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: PLANTED\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: PLANTED\r\n\r\n",
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Read(make([]byte, 4096))
				conn.Write([]byte(response))
				conn.Close()
			}
		}()
		client := tokenEndpoint(t, 200, "")
		client.Config.Endpoint.TokenURL, client.UserinfoEndpoint = "http://"+listener.Addr().String(), "http://"+listener.Addr().String()
		_, refreshErr := client.Refresh(t.Context(), Tokens{Refresh: "r"})
		_, readErr := client.UserInfo(t.Context(), "a")
		for _, err := range []error{refreshErr, readErr} {
			if err == nil || strings.Contains(err.Error(), "PLANTED") {
				t.Errorf("%q: got %v, want an error without the response's words", response, err)
			}
		}
		listener.Close()
	}
}

func TestErrorsNameTheStatusByItsNumber(t *testing.T) {
	for status, want := range map[int]string{503: "status 503", 403: "refused with status 403"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		client := tokenEndpoint(t, 200, "")
		client.UserinfoEndpoint = server.URL
		_, err := client.UserInfo(t.Context(), "a")
		server.Close()
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("status %d: got %v, want %q at the end", status, err, want)
		}
	}
}
