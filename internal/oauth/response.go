package oauth

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"syscall"

	"github.com/caddy-tollgate/tollgate/internal/cause"
)

// maxResponse is the maximum size of a provider's response in bytes. The largest legitimate one
// is a token response of a few kilobytes.
const maxResponse = 256 << 10

var (
	errResponseTooLarge = cause.Else(cause.InvalidResponse, errors.New("the response is too large"))
	errResponseCut      = cause.Else(cause.InvalidResponse, errors.New("the response was cut off"))
	errResponseSlow     = cause.Else(cause.Timeout, errors.New("timeout: the response did not end in time"))
)

// readResponse reads a whole response of at most maxResponse bytes.
func readResponse(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxResponse+1))
	switch {
	case isTimeout(err):
		return body, errResponseSlow
	case err != nil:
		return body, errResponseCut
	}
	if len(body) > maxResponse {
		return nil, errResponseTooLarge
	}
	return body, nil
}

// unansweredError returns the error for a request that got no response.
func unansweredError(endpoint providerEndpoint, kind Failure, err error) *Error {
	if isTimeout(err) {
		return &Error{Endpoint: endpoint, Kind: kind, Reason: "timeout: no response in time", Because: cause.Timeout}
	}
	return &Error{Endpoint: endpoint, Kind: kind, Reason: transportReason(err)}
}

// isTimeout reports whether a request failed because the provider was too slow: to accept the
// connection, to finish the TLS handshake, or to respond.
func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// transportReason returns the reason why a request got no response, without the URL and without
// anything that the other side sent.
func transportReason(err error) string {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if errors.Is(err, context.Canceled) {
		return "the request was canceled"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return "the connection was cut"
	}
	// Repeat only the text of local errors: a protocol error quotes what was received.
	if oe, ok := errors.AsType[*net.OpError](err); ok {
		return "cannot connect: " + oe.Error()
	}
	if ce, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "TLS certificate not accepted: " + ce.Error()
	}
	return "TLS or HTTP protocol error"
}

// withSentTrace returns a context that sets *sent when a request's header has been sent. Before
// that it is certain that the provider did nothing.
func withSentTrace(ctx context.Context, sent *atomic.Bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
	})
}
