package web

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

func mustParseAccent(t *testing.T, text string) Accent {
	t.Helper()
	accent, err := ParseAccent(text)
	if err != nil {
		t.Fatal(err)
	}
	return accent
}

func TestEveryAccentHasContrastInLightAndDark(t *testing.T) {
	light, dark := schemes(t, styleFile)
	tried := 0
	for r := 0; r <= 0xff; r += 0x33 {
		for g := 0; g <= 0xff; g += 0x33 {
			for b := 0; b <= 0xff; b += 0x33 {
				text := fmt.Sprintf("%02x%02x%02x", r, g, b)
				ownLight, ownDark := schemes(t, mustParseAccent(t, text).css)
				l, d := maps.Clone(light), maps.Clone(dark)
				maps.Copy(l, ownLight)
				maps.Copy(d, ownDark)
				checkContrast(t, "light, "+text, l)
				checkContrast(t, "dark, "+text, d)
				tried++
			}
		}
	}
	if tried != 216 {
		t.Errorf("tried %d colours", tried)
	}
}

func TestAccentWithContrastIsNotChanged(t *testing.T) {
	for text, want := range map[string]string{"1c9c6c": "#1c9c6c", "#1C9C6C": "#1c9c6c", "d5a": "#dd55aa"} {
		css := mustParseAccent(t, text).css
		if strings.Count(css, "--accent: "+want+";") != 2 {
			t.Errorf("%s: %s", text, css)
		}
	}
	// White on white is a button that nobody sees.
	if css := mustParseAccent(t, "fff").css; strings.Count(css, "--accent: #ffffff;") != 1 {
		t.Errorf("white: %s", css)
	}
}

func TestCardColoursEqualTheStyleSheet(t *testing.T) {
	light, dark := schemes(t, styleFile)
	if lightCard.luminance() != light["card"] || darkCard.luminance() != dark["card"] {
		t.Error("the cards in accent.go are not those of style.css")
	}
}

func TestAccentIsInThePageAndInItsPolicy(t *testing.T) {
	p := mustNew(Options{Accent: mustParseAccent(t, "0a7d55")})
	rendered, err := p.Render(SignIn, fullData())
	if err != nil {
		t.Fatal(err)
	}
	style := text(parse(t, rendered).one(t, "style"))
	if !strings.Contains(style, "--accent: #0a7d55;") || !strings.Contains(rendered.Policy, hashOf(style)) {
		t.Errorf("policy %s, style %s", rendered.Policy, style)
	}
}

func TestAccentMustBeAColour(t *testing.T) {
	for _, text := range []string{
		"", "#", "12", "1234", "12345", "1234567", "##123456", "12345g", "+12345", "-12", "0x1234", "1_3456", "red",
		"rgb(1,2,3)", " 123456", "123456;}", "#12345", "#1234567", "１２３",
	} {
		if accent, err := ParseAccent(text); err == nil {
			t.Errorf("%q became %s", text, accent.css)
		}
	}
}
