package web

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

const svgLogo = `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><path d="M0 0h4v4z"/></svg>`

func picture(t *testing.T, format string) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 4, 4))
	var b bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&b, img)
	case "jpeg":
		err = jpeg.Encode(&b, img, nil)
	case "gif":
		err = gif.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLogoIsPartOfThePage(t *testing.T) {
	for mediaType, raw := range map[string][]byte{
		"image/png":     picture(t, "png"),
		"image/jpeg":    picture(t, "jpeg"),
		"image/svg+xml": []byte(svgLogo),
	} {
		logo, err := ParseLogo(raw)
		if err != nil {
			t.Fatalf("%s: %v", mediaType, err)
		}
		p := mustNew(Options{Logo: logo})
		for _, page := range allPages {
			rendered, err := p.Render(page, fullData())
			if err != nil {
				t.Fatal(err)
			}
			img := parse(t, rendered).one(t, "img")
			src, _ := attr(img, "src")
			if want := "data:" + mediaType + ";base64," + base64.StdEncoding.EncodeToString(raw); src != want {
				t.Errorf("%s: src = %.60q, want %.60q", page, src, want)
			}
			// People who do not see it have the name.
			if alt, _ := attr(img, "alt"); alt != "Acme Studio" {
				t.Errorf("%s: alt = %q", page, alt)
			}
			if !strings.Contains(rendered.Policy, "img-src data:;") {
				t.Errorf("%s: the policy does not allow it: %s", page, rendered.Policy)
			}
		}
	}
}

func TestLogoMustBeAPicture(t *testing.T) {
	for name, raw := range map[string][]byte{
		"nothing":          {},
		"text":             []byte("logo"),
		"a GIF":            picture(t, "gif"),
		"HTML":             []byte("<!doctype html><script>alert(1)</script>"),
		"HTML with an SVG": []byte("<html>" + svgLogo + "</html>"),
		"an SVG cut short": []byte(svgLogo[:len(svgLogo)-6]),
		"an SVG and more":  []byte(svgLogo + "<p"),
		"another svg":      []byte(`<svg xmlns="urn:x"/>`),
		"half a PNG":       picture(t, "png")[:12],
		"too much":         []byte(strings.Replace(svgLogo, "</svg>", "<!--"+strings.Repeat("x", maxLogo)+"--></svg>", 1)),
	} {
		if _, err := ParseLogo(raw); err == nil {
			t.Errorf("%s is taken for a logo", name)
		}
	}
}
