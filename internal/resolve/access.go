package resolve

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// Secrets reads the secrets for the cookies, the current one first. A text may contain several,
// one in each line.
func Secrets(r *config.Resolver, raw []string) (secrets [][]byte) {
	for _, each := range raw {
		if each == "" {
			r.Fail("secret", "is empty")
		}
		text := r.AnyText("secret", each, "")
		if r.Err != nil {
			return secrets
		}
		found, err := keys.ParseSecrets(text)
		r.Check("secret", each, err)
		secrets = append(secrets, found...)
	}
	return secrets
}

// Hosts reads hosts with an optional port, in the form of origin.HostAndPort.
func Hosts(r *config.Resolver, setting string, raw []string) (hosts []string) {
	for i, text := range r.Texts(setting, raw) {
		host, err := parseHost(text)
		r.Check(setting, raw[i], err)
		if r.Err == nil {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// parseHost parses a host with an optional port, as in an https URL.
func parseHost(text string) (string, error) {
	u, err := url.Parse("https://" + text)
	if err != nil || u.User != nil || u.Host != text || strings.HasSuffix(text, ":") {
		return "", fmt.Errorf("%q is not a host such as pay.example.com or pay.example.com:8443", text)
	}
	if _, err := origin.CanonicalHost(u.Hostname()); err != nil {
		return "", err
	}
	return origin.HostAndPort(u), nil
}

// Domains reads domains of e-mail addresses.
func Domains(r *config.Resolver, setting string, raw []string) (domains []string) {
	for i, text := range r.Texts(setting, raw) {
		if strings.ContainsAny(text, "@*/: \t") || text[0] == '.' || strings.HasSuffix(text, ".") {
			r.Check(setting, raw[i], fmt.Errorf("%q is not a domain such as example.com", text))
		}
		domains = append(domains, policy.LowerASCII(text))
	}
	return domains
}

// Proxies reads the addresses of trusted proxies.
func Proxies(r *config.Resolver, setting string, raw []string) (proxies policy.TrustedProxies) {
	for _, each := range raw {
		if each == "" {
			r.Fail(setting, "is empty")
		}
		prefixes, err := parseProxies(r.Text(setting, each, ""))
		r.Check(setting, each, err)
		proxies = append(proxies, prefixes...)
	}
	return proxies
}

// privateRanges is Caddy's name for the addresses of private networks and of loopback.
const privateRanges = "private_ranges"

// parseProxies parses an address, a CIDR range, or `private_ranges`.
func parseProxies(text string) (policy.TrustedProxies, error) {
	expressions := []string{text}
	if text == privateRanges {
		expressions = caddyhttp.PrivateRangesCIDR()
	}
	proxies := make(policy.TrustedProxies, 0, len(expressions))
	for _, expression := range expressions {
		prefix, err := caddyhttp.CIDRExpressionToPrefix(expression)
		if err != nil || strings.Contains(text, "%") || prefix.Addr().Is4In6() { // Caddy would drop a zone silently
			return nil, fmt.Errorf("%q is neither an address nor a CIDR range nor %s", text, privateRanges)
		}
		proxies = append(proxies, prefix)
	}
	return proxies, nil
}
