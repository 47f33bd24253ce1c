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

// TopupURL asks where the user can top up. Only an https URL, or an http one on loopback,
// is ever given out, and only one on a host of topup_hosts where these are configured.
func (c *Client) TopupURL(ctx context.Context, access string) (string, error) {
	body, err := c.get(ctx, endpointTopup, c.TopupEndpoint, access)
	if err != nil {
		return "", err
	}
	object, err := parseAnswer(body)
	if err != nil {
		return "", answerError(endpointTopup, err)
	}
	var raw string
	if json.Unmarshal(object["topup_url"], &raw) != nil || raw == "" {
		return "", &Error{Endpoint: endpointTopup, Status: http.StatusOK, Reason: "the answer has no topup_url"}
	}
	u, reason := checkTopupURL(raw, c.TopupHosts)
	if reason != "" {
		return "", &Error{Endpoint: endpointTopup, Status: http.StatusOK, Reason: reason}
	}
	return u.String(), nil
}

// checkTopupURL reads a top-up URL, or gives the reason why nobody may be sent there.
func checkTopupURL(raw string, hosts []string) (u *url.URL, reason string) {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || !origin.IsSecure(u) {
		return nil, "the topup_url is not an https URL"
	}
	if !hasUsableHost(u) {
		return nil, "the topup_url's host is not one that browsers can open"
	}
	if len(hosts) > 0 && !slices.Contains(hosts, origin.HostAndPort(u)) {
		return nil, "the topup_url's host is not one of topup_hosts"
	}
	return u, ""
}

// hasUsableHost reports whether browsers can open the host and the port of u. DNS knows no
// empty label but the last one (RFC 1034 section 3.1), and a port has 16 bits.
func hasUsableHost(u *url.URL) bool {
	host, err := origin.CanonicalHost(u.Hostname())
	if err != nil || slices.Contains(strings.Split(strings.TrimSuffix(host, "."), "."), "") {
		return false
	}
	_, err = strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() == "" || err == nil
}
