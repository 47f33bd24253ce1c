package header

import (
	"strings"
)

// Encode percent-encodes a text so that it passes through HTTP unchanged and can be
// decoded exactly. It encodes every byte outside printable ASCII, the percent sign, and
// the spaces at both ends. Every HTTP parser trims a field value (RFC 9110 section 5.5):
// without that encoding, " admin" would arrive as the user "admin".
func Encode(s string) string {
	const hex = "0123456789ABCDEF"
	text := strings.Trim(s, " ")
	start := strings.Index(s, text)
	end := start + len(text)
	encoded := len(s) - len(text)
	for i := range len(text) {
		if isOddInHeader(text[i]) {
			encoded++
		}
	}
	if encoded == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*encoded)
	for i := range len(s) {
		if c := s[i]; i < start || i >= end || isOddInHeader(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

func isOddInHeader(c byte) bool { return c < 0x20 || c > 0x7e || c == '%' }
