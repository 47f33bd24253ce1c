package doctor

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// provider sends the requests of the checks to the provider, and remembers what came back.
type provider struct {
	client *oauth.Client
	http   *http.Client
	// last is the response to the last request.
	last response
	// down are the origins that did not respond, so that the other endpoints there are not
	// asked as well.
	down map[string]bool
	// clocks are the provider's clock in the first response that has a Date, and ours.
	providersClock, ownClock time.Time
}

// response is what the checks need of a response. It has either an error or a status.
type response struct {
	err      error
	status   int
	location *url.URL // nil if there is none
	html     bool
	body     string // the beginning
}

// maxBody limits how much of a response is read.
const maxBody = 64 << 10

func newProvider(client *oauth.Client) *provider {
	p := &provider{down: map[string]bool{}}
	p.http = oauth.NewHTTPClient(client.Timeout)
	p.http.Transport = &recorder{p.http.Transport, p}
	p.client = client.With(p.http)
	return p
}

func (p *provider) close() { p.client.Close() }

// recorder remembers each response in provider.last.
type recorder struct {
	next http.RoundTripper
	p    *provider
}

// RoundTrip implements http.RoundTripper.
func (t *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	p := t.p
	p.last = response{}
	res, err := t.next.RoundTrip(r)
	if err != nil {
		p.last.err = err
		p.down[origin.Of(r.URL)] = true
		return nil, err
	}
	p.last.status = res.StatusCode
	p.last.location, _ = res.Location()
	p.last.html = strings.Contains(res.Header.Get("Content-Type"), "html")
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil && p.ownClock.IsZero() && res.Header.Get("Age") == "" {
		p.providersClock, p.ownClock = date, time.Now()
	}
	res.Body = &remembered{res.Body, &p.last}
	return res, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections reach the transport.
func (t *recorder) CloseIdleConnections() {
	if closer, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// remembered keeps the beginning of a body that is read.
type remembered struct {
	io.ReadCloser
	last *response
}

// Read implements io.Reader.
func (b *remembered) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if room := maxBody - len(b.last.body); room > 0 {
		b.last.body += string(p[:min(n, room)])
	}
	return n, err
}

// get sends a GET request, and follows no redirect.
func (p *provider) get(ctx context.Context, address, accessToken string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		p.last = response{err: err}
		return
	}
	if accessToken != "" {
		r.Header.Set("Authorization", "Bearer "+accessToken)
		r.Header.Set("Accept", "application/json")
	} else {
		r.Header.Set("Accept", "text/html")
	}
	res, err := p.http.Do(r)
	if err != nil {
		p.last = response{err: err}
		return
	}
	defer res.Body.Close() //nolint:errcheck // nothing more is read
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxBody))
}

// isDown reports whether the origin of an endpoint did not respond to an earlier request.
func (p *provider) isDown(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && p.down[origin.Of(u)]
}

// madeUp returns a code or a token that no provider has given.
func madeUp() string { return "tollgate-doctor-" + rand.Text() }

// common judges what is wrong with any endpoint: no response, a redirect, an error of the
// server, or a path that does not exist. It returns nil if the response comes from an endpoint.
func (p *provider) common(option, endpoint string) []Finding {
	shown := shownURL(endpoint)
	switch last := p.last; {
	case last.err != nil:
		return unreachable(option, shown, last.err)
	case last.status == http.StatusNotFound || last.status == http.StatusGone || last.status == http.StatusMethodNotAllowed:
		return fail(fmt.Sprintf("%s answers %d: this is not the URL of the endpoint", shown, last.status),
			"correct `"+option+"`, or `base_url`, by the provider's documentation")
	case last.status == http.StatusTooManyRequests:
		return warn(shown+" answers 429: the provider limits requests from here, so this could not be checked", "run doctor again in a few minutes")
	case last.status >= 500:
		return fail(fmt.Sprintf("%s answers %d: the provider is down, or a proxy in front of it cannot reach it", shown, last.status),
			"look at the provider's status page; sessions with valid access tokens go on working")
	case last.status == http.StatusBadRequest && strings.Contains(strings.ToLower(last.body), "https") && strings.Contains(strings.ToLower(last.body), "http request"):
		return fail(shown+" is http, but the provider speaks https there", "begin `"+option+"`, or `base_url`, with https://")
	}
	return nil
}

// redirected judges a redirect of an endpoint that must respond itself. tollgate follows none:
// the client secret would go along.
func (p *provider) redirected(option, endpoint string) []Finding {
	if p.last.status < 300 || p.last.status > 399 {
		return nil
	}
	to := "elsewhere"
	if p.last.location != nil {
		to = "to " + shownURL(p.last.location.String())
	}
	return fail(fmt.Sprintf("%s redirects %s. tollgate follows no redirects, because the client secret would go along", shownURL(endpoint), to),
		"set `"+option+"`, or `base_url`, to the URL where the endpoint really is")
}

// shownURL is a URL without what may be a secret: user, query and fragment.
func shownURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the URL"
	}
	return config.Shown((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
}

// unreachable says why there was no response.
func unreachable(option, shown string, err error) []Finding {
	correct := "correct the host in `" + option + "`, or in `base_url`"
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return fail(fmt.Sprintf("%s: the name %s does not exist in DNS", shown, dns.Name), correct+", or this machine's DNS")
		}
		return fail(fmt.Sprintf("%s: the name %s cannot be resolved: the DNS server does not answer", shown, dns.Name), "check this machine's DNS, such as /etc/resolv.conf")
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fail(fmt.Sprintf("%s: the TLS certificate is valid from %s to %s, and this machine's clock says %s", shown,
			day(invalid.Cert.NotBefore), day(invalid.Cert.NotAfter), day(time.Now())),
			"if the clock is right, the provider must renew its certificate; otherwise set the clock")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fail(shown+": the TLS certificate is not from an authority that this machine trusts",
			"install the certificates of the public authorities (Debian: ca-certificates), or add your own authority to the system's")
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return fail(fmt.Sprintf("%s: the TLS certificate is not for the host %s", shown, wrong.Host), correct)
	}
	switch timeout, _ := errors.AsType[net.Error](err); {
	case errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fail(shown+" is https, but the server speaks plain http there", "correct the scheme or the port in `"+option+"`, or in `base_url`")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail(shown+": the connection is refused: nothing listens there", "start the provider, if it is yours; otherwise correct the host or the port in `"+option+"` or `base_url`")
	case timeout != nil && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fail(shown+": no response within the timeout: the provider is down, or a firewall drops the packets",
			"look at the provider's status page; let the firewall pass connections from this machine to the provider, or set HTTPS_PROXY if they must go through a proxy")
	default:
		return fail(shown+": no response: "+config.WithoutSecrets(rootCause(err), nil).Error(), "check the network between this machine and the provider")
	}
}

// rootCause is an error without the URL that http.Client puts before it.
func rootCause(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
