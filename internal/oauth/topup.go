package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// TopupURL asks the provider where the user can top up. It returns only an https URL, or an
// http URL on loopback, and only on a host in topup_hosts if that is configured.
func (c *Client) TopupURL(ctx context.Context, access string) (string, error) {
	body, err := c.get(ctx, endpointTopup, c.TopupEndpoint, access)
	if err != nil {
		return "", err
	}
	object, err := parseResponse(body)
	if err != nil {
		return "", responseError(endpointTopup, err)
	}
	var raw string
	if json.Unmarshal(object["topup_url"], &raw) != nil || raw == "" {
		return "", &Error{Endpoint: endpointTopup, Status: http.StatusOK, Reason: "the response has no topup_url"}
	}
	u, reason := checkTopupURL(raw, c.TopupHosts)
	if reason != "" {
		return "", &Error{Endpoint: endpointTopup, Status: http.StatusOK, Reason: reason}
	}
	return u.String(), nil
}

// checkTopupURL parses a top-up URL. If browsers must not be sent there, reason says why.
func checkTopupURL(raw string, hosts []string) (u *url.URL, reason string) {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || !origin.IsSecure(u) {
		return nil, "the topup_url is not an https URL"
	}
	if !hasUsableHost(u) {
		return nil, "browsers cannot open the topup_url's host"
	}
	if len(hosts) > 0 && !slices.Contains(hosts, origin.HostAndPort(u)) {
		return nil, "the topup_url's host is not in topup_hosts"
	}
	return u, ""
}

// hasUsableHost reports whether browsers can open the host and the port of u. In DNS only the
// last label may be empty (RFC 1034 section 3.1), and a port has 16 bits.
func hasUsableHost(u *url.URL) bool {
	host, err := origin.CanonicalHost(u.Hostname())
	if err != nil || slices.Contains(strings.Split(strings.TrimSuffix(host, "."), "."), "") {
		return false
	}
	_, err = strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() == "" || err == nil
}
