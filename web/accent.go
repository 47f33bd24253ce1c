package web

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Accent is the colour of buttons and marks, computed for the light and the dark scheme.
// The zero value keeps the colours of the style sheet.
type Accent struct {
	css string
}

// The background of the card, as in style.css.
var (
	lightCard = colour{0xff, 0xff, 0xff}
	darkCard  = colour{0x18, 0x1b, 0x21}
)

var (
	white = colour{0xff, 0xff, 0xff}
	black = colour{}
)

// The minimum contrast between the accent and the card. WCAG 2.2 (1.4.11) requires 3 for
// the marks of a control. On a dark card thin lines look faint with 3, so it is 4.5 there.
// Text needs 4.5 (1.4.3). Either white or black text has that on any colour.
const (
	leastOnLight = 3
	leastOnDark  = 4.5
)

// ParseAccent reads a colour such as 3a4cc9: three or six hex digits, with or without a #
// before them. Every colour is possible. A colour with too little contrast to the card is
// made darker in the light scheme, and lighter in the dark one.
func ParseAccent(text string) (Accent, error) {
	c, ok := parseColour(text)
	if !ok {
		return Accent{}, fmt.Errorf("%q is not a colour in three or six hex digits, such as 3a4cc9", text)
	}
	return Accent{css: "\n:root {" + accentIn(c, lightCard, black, leastOnLight) + "}\n" +
		"@media (prefers-color-scheme: dark) {\n:root {" + accentIn(c, darkCard, white, leastOnDark) + "}\n}\n"}, nil
}

// accentIn returns the colours of one scheme as CSS: c, mixed with the colour away until
// its contrast to the card is at least the given one, and the colours derived from it.
func accentIn(c, card, away colour, least float64) string {
	const steps = 20
	accent, tint := c, card
	for i := range steps + 1 {
		accent = c.mix(away, float64(i)/steps)
		tint = card.mix(accent, .12)
		if accent.contrast(card) >= least && accent.contrast(tint) >= leastOnLight {
			break
		}
	}
	// Under the pointer the button gets darker behind white text, and lighter behind black
	// text. So the contrast does not fall.
	text, hover := white, accent.mix(black, .15)
	if accent.contrast(black) > accent.contrast(white) {
		text, hover = black, accent.mix(white, .15)
	}
	return fmt.Sprintf(" --accent: %s; --accent-hover: %s; --on-accent: %s; --accent-tint: %s; ", accent, hover, text, tint)
}

// colour has the values of red, green and blue in sRGB.
type colour [3]uint8

func parseColour(text string) (colour, bool) {
	digits := strings.TrimPrefix(text, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	n, err := strconv.ParseUint(digits, 16, 24)
	if err != nil || len(digits) != 6 {
		return colour{}, false
	}
	return colour{uint8(n >> 16), uint8(n >> 8), uint8(n)}, true
}

func (c colour) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// mix mixes two colours. A share of 0 returns c, and a share of 1 returns other.
func (c colour) mix(other colour, share float64) colour {
	var mixed colour
	for i := range c {
		mixed[i] = uint8(math.Round(float64(c[i])*(1-share) + float64(other[i])*share))
	}
	return mixed
}

// contrast is WCAG's contrast ratio: 1 for the same colour, 21 for black on white.
func (c colour) contrast(other colour) float64 {
	a, b := c.luminance(), other.luminance()
	return (max(a, b) + .05) / (min(a, b) + .05)
}

func (c colour) luminance() float64 {
	linear := func(channel uint8) float64 {
		v := float64(channel) / 255
		if v <= .04045 {
			return v / 12.92
		}
		return math.Pow((v+.055)/1.055, 2.4)
	}
	return .2126*linear(c[0]) + .7152*linear(c[1]) + .0722*linear(c[2])
}
