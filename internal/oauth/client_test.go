package oauth

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
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
