package web

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestPolicyAllowsTheInlineBytesOfThePageAndNothingElse(t *testing.T) {
	for _, page := range allPages {
		doc, csp := mustRender(t, page, fullData())
		want := "default-src 'none'; style-src " + hashOf(text(doc.one(t, "style"))) + "; "
		if page == Popup || page == SignIn || page == Balance {
			want += "script-src " + hashOf(text(doc.one(t, "script"))) + "; "
		} else if n := len(doc.all("script")); n != 0 {
			t.Errorf("%s has %d scripts", page, n)
		}
		want += "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
		if csp != want {
			t.Errorf("%s:\n got %s\nwant %s", page, csp, want)
		}

		for _, n := range doc.all("*") {
			for _, a := range n.Attr {
				if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: <%s %s> is blocked by the policy", page, n.Data, a.Key)
				}
			}
		}
	}
}

func hashOf(s string) string {
	return fmt.Sprintf("'sha256-%s'", base64.StdEncoding.EncodeToString(sum(s)))
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

func TestInlineBytesAreWhatABrowserHashes(t *testing.T) {
	if got := inline("a\r\nb\n"); got != "a\nb\n" {
		t.Errorf("got %q", got)
	}
	for name, s := range map[string]string{"style.css": standard.style, "popup.js": scripts[Popup], "sign_in.js": scripts[SignIn], "balance.js": scripts[Balance]} {
		if strings.ContainsAny(s, "\r\x00") || strings.Contains(s, "</") || strings.Contains(s, "<!--") {
			t.Errorf("%s holds bytes that an HTML parser changes or ends at", name)
		}
	}
}

// schemes reads the colours of a style sheet, by scheme and name.
func schemes(t *testing.T, css string) (light, dark map[string]float64) {
	t.Helper()
	lightCSS, darkCSS, ok := strings.Cut(css, "prefers-color-scheme: dark")
	if !ok {
		t.Fatal("no dark scheme")
	}
	read := func(css string) map[string]float64 {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(css, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		return colours
	}
	return read(lightCSS), read(darkCSS)
}

// checkContrast holds WCAG 2.2: 4.5 to 1 for text (1.4.3), 3 to 1 for what marks a
// control (1.4.11).
func checkContrast(t *testing.T, scheme string, colours map[string]float64) {
	t.Helper()
	for _, c := range []struct {
		front, back string
		least       float64
	}{
		{"text", "card", 4.5},
		{"text", "page", 4.5},
		{"soft", "card", 4.5},
		{"on-accent", "accent", 4.5},
		{"on-accent", "accent-hover", 4.5},
		{"accent", "card", 3},
		{"quiet-edge", "card", 3},
		{"accent", "accent-tint", 3},
		{"good", "good-tint", 3},
		{"warn", "warn-tint", 3},
		{"bad", "bad-tint", 3},
	} {
		front, okFront := colours[c.front]
		back, okBack := colours[c.back]
		if !okFront || !okBack {
			t.Fatalf("%s: no colour %s or %s", scheme, c.front, c.back)
		}
		ratio := (max(front, back) + .05) / (min(front, back) + .05)
		if ratio < c.least {
			t.Errorf("%s: %s on %s is %.2f to 1, want %.1f", scheme, c.front, c.back, ratio, c.least)
		}
	}
}

func TestColoursHaveContrastInLightAndDark(t *testing.T) {
	light, dark := schemes(t, standard.style)
	checkContrast(t, "light", light)
	checkContrast(t, "dark", dark)
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	rgb, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	channel := func(shift uint) float64 {
		c := float64(rgb>>shift&0xff) / 255
		if c <= .04045 {
			return c / 12.92
		}
		return math.Pow((c+.055)/1.055, 2.4)
	}
	return .2126*channel(16) + .7152*channel(8) + .0722*channel(0)
}
