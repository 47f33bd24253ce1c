// Package origin knows what a browser takes for one origin, and which paths stay on it.
//
// It compares origins in the form that browsers write them (ASCII host, no default port),
// says which URLs may carry secrets, and cleans return paths so that no redirect leaves
// the site. It makes no requests and writes no responses. Begin with CleanPath.
package origin

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// HostAndPort returns the host of u in the form of Of, and the port unless it is the
// scheme's default port.
func HostAndPort(u *url.URL) string {
	_, host, _ := strings.Cut(Of(u), "://")
	return host
}

// Of returns the origin of u as a browser writes it in Origin, Referer and
// event.origin: the host in the form of CanonicalHost, without the scheme's default port
// (RFC 6454 section 6.2). A host that no browser can open is only put in lower case. Such
// an origin never equals one that a browser sends.
func Of(u *url.URL) string {
	host, err := CanonicalHost(u.Hostname())
	if err != nil {
		host = strings.ToLower(u.Hostname())
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	port, err := strconv.Atoi(u.Port())
	switch {
	case err != nil, u.Scheme == "https" && port == 443, u.Scheme == "http" && port == 80:
		return u.Scheme + "://" + host
	default:
		return u.Scheme + "://" + host + ":" + strconv.Itoa(port)
	}
}

// hostProfile turns a domain into ASCII as the URL parser of browsers does (WHATWG URL
// section 3.3, "domain to ASCII" with beStrict false).
var hostProfile = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.CheckJoiners(true),
	idna.CheckHyphens(false),
	idna.StrictDomainName(false),
	idna.Transitional(false),
)

// CanonicalHost returns a host name or an IP address in the one form that browsers use:
// the name in ASCII and lower case, an IPv6 address in its short form. The host comes
// without brackets and port. CanonicalHost returns an error for a host that browsers
// refuse, and for a host that browsers read as a different one.
func CanonicalHost(host string) (string, error) {
	if strings.Contains(host, ":") {
		return canonicalIPv6(host)
	}
	if !utf8.ValidString(host) { // ToASCII would encode U+FFFD, and refuse its own result
		return "", fmt.Errorf("%q is not a host name", host)
	}
	ascii, err := hostProfile.ToASCII(host)
	switch {
	case err != nil || ascii == "" || strings.Trim(ascii, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "":
		return "", fmt.Errorf("%q is not a host name", host)
	case endsInNumber(ascii):
		return canonicalIPv4(ascii)
	}
	return ascii, nil
}

// endsInNumber reports whether browsers read a host as an IPv4 address. They do if its
// last label is a number, in decimal or in hexadecimal digits behind 0x. A dot at the
// end does not count.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if digits, isHex := strings.CutPrefix(last, "0x"); isHex {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

// canonicalIPv4 accepts only four decimal numbers. Browsers also read 127.1, 0x7f.1 and
// 2130706433 as addresses, but other programs read these differently.
func canonicalIPv4(host string) (string, error) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(host, "."))
	if err != nil {
		return "", fmt.Errorf("%q is read as an IPv4 address by browsers: write it as four decimal numbers", host)
	}
	return addr.String(), nil
}

// canonicalIPv6 writes an address as RFC 5952 does, with one exception: like browsers, it
// writes an embedded IPv4 address in hexadecimal digits. Browsers do not support zones.
func canonicalIPv6(host string) (string, error) {
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is not an IPv6 address", host)
	case addr.Zone() != "":
		return "", errors.New("browsers cannot open a URL with a zone in its IPv6 address")
	case addr.Is4In6():
		b := addr.As16()
		return fmt.Sprintf("::ffff:%x:%x", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15])), nil
	}
	return addr.String(), nil
}

// IsSecure reports whether secrets may be sent to u: its scheme is https, or http on
// loopback, where nobody else can read the traffic.
func IsSecure(u *url.URL) bool {
	switch u.Scheme {
	case "https":
		return u.Host != ""
	case "http":
		return IsLoopback(u.Hostname())
	default:
		return false
	}
}

// IsLoopback reports whether a host name certainly means this machine
// (RFC 8252 section 7.3, RFC 6761 section 6.3).
func IsLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
