package policy

import "strings"

// isHost reports whether the value of a Host header is a name or an address, with a port
// or without. Servers disagree about others: of `admin.localhost:1:2` nginx takes
// `admin.localhost`, and Caddy the whole; in `a@admin.localhost` a URL parser finds a
// user. An empty value is allowed, as in HTTP/1.0.
func isHost(host string) bool {
	name, rest := host, ""
	isName := isHostName
	if address, isAddress := strings.CutPrefix(host, "["); isAddress {
		var closed bool
		if name, rest, closed = strings.Cut(address, "]"); !closed || name == "" {
			return false
		}
		isName = isIPv6Text
	} else if colon := strings.IndexByte(host, ':'); colon >= 0 {
		name, rest = host[:colon], host[colon:]
	}
	port, hasPort := strings.CutPrefix(rest, ":")
	return (rest == "" || hasPort) && all(name, isName) && all(port, isDigit)
}

// plainHost returns a host in lower case and without the dots that may end a full domain
// name. Its port stays.
func plainHost(host string) string {
	host = strings.ToLower(host)
	if strings.HasPrefix(host, "[") {
		return host
	}
	name, port, hasPort := strings.Cut(host, ":")
	name = strings.TrimRight(name, ".")
	if hasPort {
		return name + ":" + port
	}
	return name
}

func all(text string, is func(byte) bool) bool {
	for i := range len(text) {
		if !is(text[i]) {
			return false
		}
	}
	return true
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

func isHostName(b byte) bool {
	return isDigit(b) || 'a' <= b|0x20 && b|0x20 <= 'z' || b == '-' || b == '.' || b == '_' || b == '~'
}

// isIPv6Text also allows the zone of an address, such as in `fe80::1%25eth0`.
func isIPv6Text(b byte) bool { return isHostName(b) || b == ':' || b == '%' }
