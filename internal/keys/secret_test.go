package keys

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

func TestParseSecretReadsHexAndBase64url(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff, 0x01}, 11) // 33 bytes
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{strings.Repeat("0f", 32), true},
		{strings.Repeat("0F", 32) + "0", false}, // odd hex
		{base64.RawURLEncoding.EncodeToString(raw), true},
		{base64.URLEncoding.EncodeToString(raw), true},
		{base64.StdEncoding.EncodeToString(raw), true},
		{strings.Repeat("a", 42), false}, // 31 bytes
		{strings.Repeat("a", 43), true},
		{"short", false},
		{"", false},
		{strings.Repeat("ä", 40), false},
		{NewSecret(), true},
	} {
		secret, err := ParseSecret(c.text)
		if (err == nil) != c.ok || (c.ok && len(secret) < MinSecret) {
			t.Errorf("%q: %v", c.text, err)
		}
		if err != nil && len(c.text) > 4 && strings.Contains(err.Error(), c.text) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}
