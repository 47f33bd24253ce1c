package tollgate_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// protocolSite is a gateway in a Caddy process of its own that speaks HTTP/1.1, HTTP/2
// and HTTP/3 with TLS, and HTTP/1.1 and HTTP/2 without. Its process serves WebSockets
// over HTTP/2, which Go's servers do only where GODEBUG says so.
type protocolSite struct {
	*gatewaytest.Fleet
	secure, plain string // addresses
	// firstToken is the access token that an upstream has seen first.
	firstToken atomic.Value
}

// protocolOptions are what a test wants otherwise than usual.
type protocolOptions struct {
	handler    http.HandlerFunc // the upstream's own
	inTollgate string
	before     string // directives that stand before tollgate
	bare       bool   // without tollgate
	matcher    string
}

func newProtocolSite(t *testing.T, options protocolOptions) *protocolSite {
	t.Helper()
	s := &protocolSite{
		Fleet:  &gatewaytest.Fleet{Site: &gatewaytest.Site{T: t, Upstream: gatewaytest.NewUpstream(t, options.handler), Clock: gatewaytest.NewClock()}},
		secure: porttest.Address(), plain: porttest.Address(),
	}
	s.URL = "https://" + s.secure
	s.Provider = simulator.New(simulator.Options{
		AutoLogin: "user123", AllowLoginHint: true,
		Clients: []simulator.Client{{ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, RedirectURIs: []string{s.URL + "/oauth/callback"}}},
	})
	provider := httptest.NewServer(s.Provider)
	t.Cleanup(provider.Close)
	s.ProviderURL = provider.URL
	name, definition := "", ""
	if options.matcher != "" {
		name, definition = "@selected", "@selected "+options.matcher+"\n"
	}
	gateway := definition + options.before + fmt.Sprintf(`tollgate %s {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
		}
		redirect_uri %s/oauth/callback
		secret %s
		public /public /public/*
		%s
	}`, name, s.ProviderURL, gatewaytest.ClientID, gatewaytest.ClientSecret, s.URL, gatewaytest.Secret, options.inTollgate)
	if options.bare {
		gateway = ""
	}
	text := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https disable_redirects
	grace_period 5s
	storage file_system %s
	servers {
		protocols h1 h2 h2c h3
	}
}
(site) {
	bind 127.0.0.1
	%s
	reverse_proxy %s
}
https://%s {
	tls %s
	import site
}
http://%s {
	import site
}
`, t.TempDir(), gateway, s.Upstream.URL, s.secure, gatewaytest.WriteCertificate(t), s.plain)
	r := &gatewaytest.Replica{URL: s.URL}
	s.StartWith(r, gatewaytest.Order{Caddyfile: text, Lease: time.Minute}, "GODEBUG=http2xconnect=1")
	return s
}

var insecureTLS = &tls.Config{InsecureSkipVerify: true} // the certificate of net/http/httptest

// newBrowser gives a browser that speaks HTTP/1.1 with TLS.
func (s *protocolSite) newBrowser() *gatewaytest.Browser {
	b := s.Site.NewBrowser()
	b.Transport = &http.Transport{TLSClientConfig: insecureTLS}
	return b
}

// cookieHeader is the Cookie header of a browser of this site.
func cookieHeader(b *gatewaytest.Browser) string {
	req, err := http.NewRequest(http.MethodGet, b.Site.URL+"/", nil)
	if err != nil {
		b.T.Fatal(err)
	}
	for _, c := range b.Jar.Cookies(req.URL) {
		req.AddCookie(c)
	}
	return req.Header.Get("Cookie")
}

// frames is one request as its frames say it: pseudo headers and headers, and the data
// that follows them.
type frames struct {
	header [][2]string
	data   string
}

// responseHead is what comes back.
type responseHead struct {
	status string
	header http.Header
}

// http2Conn dials HTTP/2, with or without TLS.
func (s *protocolSite) http2Conn(secure bool) net.Conn {
	s.T.Helper()
	var conn net.Conn
	var err error
	if secure {
		conn, err = tls.Dial("tcp", s.secure, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	} else {
		conn, err = net.Dial("tcp", s.plain)
	}
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// http2Stream is one stream on a raw HTTP/2 connection.
type http2Stream struct {
	t      *testing.T
	framer *http2.Framer
	status string
	header http.Header
	data   bytes.Buffer
	ended  bool
	// reset is the code with which the stream was reset, where it was.
	reset *http2.ErrCode
}

// openHTTP2 sends a request's header, and its data if there is any, and leaves the
// stream open.
func (s *protocolSite) openHTTP2(secure bool, f frames) *http2Stream {
	s.T.Helper()
	conn := s.http2Conn(secure)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		s.T.Fatal(err)
	}
	stream := &http2Stream{t: s.T, framer: http2.NewFramer(conn, conn), header: http.Header{}}
	stream.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range f.header {
		encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	err := errors.Join(
		stream.framer.WriteSettings(),
		stream.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
	)
	if err != nil {
		s.T.Fatal(err)
	}
	if f.data != "" {
		stream.send([]byte(f.data), true)
	}
	return stream
}

// send writes data. A server that has refused the request already may have reset the
// stream, which is no fault.
func (st *http2Stream) send(data []byte, end bool) { _ = st.framer.WriteData(1, end, data) }

// read reads frames until done, the end of the stream, or the end of the connection.
func (st *http2Stream) read(done func() bool) {
	st.t.Helper()
	for !st.ended && !done() {
		frame, err := st.framer.ReadFrame()
		if err != nil {
			st.ended = true
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = st.framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				if field.Name == ":status" {
					st.status = field.Value
				} else {
					st.header.Add(field.Name, field.Value)
				}
			}
			st.ended = frame.StreamEnded()
		case *http2.DataFrame:
			st.data.Write(frame.Data())
			st.ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			st.reset, st.ended = &frame.ErrCode, true
		case *http2.GoAwayFrame:
			st.ended = true
		}
	}
}

// overHTTP2 sends one request, and gives the head of the answer.
func (s *protocolSite) overHTTP2(secure bool, f frames) responseHead {
	s.T.Helper()
	stream := s.openHTTP2(secure, f)
	stream.read(func() bool { return stream.status != "" })
	return responseHead{stream.status, stream.header}
}

// openHTTP3 sends a request's header over HTTP/3, and leaves the stream open.
func (s *protocolSite) openHTTP3(req *http.Request) *http3.RequestStream {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	s.T.Cleanup(cancel)
	config := http3.ConfigureTLSConfig(&tls.Config{InsecureSkipVerify: true, ServerName: "127.0.0.1"})
	quicConn, err := quic.DialAddr(ctx, s.secure, config, nil)
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { quicConn.CloseWithError(0, "") })
	conn := (&http3.Transport{}).NewClientConn(quicConn)
	stream, err := conn.OpenRequestStream(ctx)
	if err != nil {
		s.T.Fatal(err)
	}
	stream.SetDeadline(time.Now().Add(20 * time.Second))
	if err := stream.SendRequestHeader(req); err != nil {
		s.T.Fatal(err)
	}
	return stream
}

// overHTTP3 sends one request with its data, and gives the head of the answer.
func (s *protocolSite) overHTTP3(req *http.Request, data string) responseHead {
	s.T.Helper()
	stream := s.openHTTP3(req)
	_, _ = io.WriteString(stream, data) // a server that has refused the request reads none of it
	_ = stream.Close()
	res, err := stream.ReadResponse()
	if err != nil {
		return responseHead{}
	}
	return responseHead{fmt.Sprint(res.StatusCode), res.Header}
}

// connectRequest is a CONNECT for HTTP/3: an extended one with a protocol, else a plain
// one.
func (s *protocolSite) connectRequest(protocol, path string, headers ...string) *http.Request {
	s.T.Helper()
	req, err := http.NewRequest(http.MethodConnect, s.URL+path, nil)
	if err != nil {
		s.T.Fatal(err)
	}
	if protocol != "" {
		req.Proto = protocol
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	return req
}

// http3Front serves a site over HTTP/3.
type http3Front struct {
	t       *testing.T
	address string
	// handled gets the path of each request that the gateway has handled.
	handled chan string
}

// inHTTP3 serves a site over HTTP/3 as well, in this process.
func inHTTP3(t *testing.T, s *gatewaytest.Site) *http3Front {
	t.Helper()
	secure := httptest.NewTLSServer(nil)
	secure.Close()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := &http3Front{t: t, address: conn.LocalAddr().String(), handled: make(chan string, 10)}
	server := &http3.Server{
		TLSConfig: &tls.Config{Certificates: secure.TLS.Certificates},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { front.handled <- r.URL.Path }()
			s.Server.ServeHTTP(w, r)
		}),
	}
	go server.Serve(conn) // ends with Close
	t.Cleanup(func() {
		server.Close()
		conn.Close()
	})
	return front
}

// dial connects to the site. cache may be nil.
func (f *http3Front) dial(cache tls.ClientSessionCache) *quic.Conn {
	f.t.Helper()
	conn, err := quic.DialAddr(f.t.Context(), f.address, http3Client(cache), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.CloseWithError(0, "") })
	return conn
}

func http3Client(cache tls.ClientSessionCache) *tls.Config {
	return http3.ConfigureTLSConfig(&tls.Config{InsecureSkipVerify: true, ServerName: "127.0.0.1", ClientSessionCache: cache})
}

// sendOverHTTP3 sends a request without a body, and leaves the stream open.
func sendOverHTTP3(t *testing.T, conn *quic.Conn, req *http.Request) *http3.RequestStream {
	t.Helper()
	stream, err := (&http3.Transport{}).NewClientConn(conn).OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	return stream
}
