package e2e

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

const (
	picturesFolder = "../docs/pictures"
	// maxPicture bounds each picture, in bytes: the pages of the manual are loaded often.
	maxPicture = 40 << 10
)

// TestPicturesOfTheManual takes the pictures anew, and with TOLLGATE_UPDATE_PICTURES
// keeps them. Other fonts make other pictures, so those that are kept are not compared
// dot by dot: they have to be there, in the same size.
func TestPicturesOfTheManual(t *testing.T) {
	s := newSite(t, siteOptions{
		inTollgate: "login_page on\nbrand \"Acme Studio\"\nrequire /paid {\nbalance 800\n}",
		policy:     "default-src 'self' data:; style-src 'unsafe-inline'",
		pages: map[string]string{"/private": document("", "Only for users"), "/page": document(`<meta name="color-scheme" content="light dark"><script type="module" src="/oauth/sdk.js"></script>
			<style>
				body { margin: 0; min-height: 100vh; display: grid; place-items: center; font: 16px/1.5 system-ui, sans-serif; background: light-dark(#f3f4f7, #0f1115); color: light-dark(#191c22, #eceef3); }
				main { box-sizing: border-box; padding: 1.5rem 2rem; border: 1px solid light-dark(#e2e5eb, #2a2f39); border-radius: 1rem; background: light-dark(#fff, #181b21); }
				h1 { margin: 0 0 .75rem; font-size: 1.25rem; }
			</style>`, `<main><h1>Acme Studio</h1><tollgate-user></tollgate-user></main>`)},
	})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")     // is the status of the sign-in page
	p.expect("402 (Payment Required)") // and this that of the other one
	w := p.open("/private")
	manual := manualText(t)
	take := func(name string, width, height int64, isThere string) {
		t.Helper()
		for _, scheme := range []string{"light", "dark"} {
			var picture []byte
			w.run("taking a picture",
				emulation.SetDeviceMetricsOverride(width, height, 2, false),
				emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
			w.eventually(fmt.Sprintf("innerWidth === %d && matchMedia('(prefers-color-scheme: %s)').matches", width, scheme))
			// Buttons take a moment to change their colour.
			w.eventually("document.getAnimations().every(animation => animation.playState === 'finished')")
			w.eventually(isThere)
			w.run("taking a picture", chromedp.Evaluate("document.activeElement.blur()", nil), chromedp.CaptureScreenshot(&picture))
			keepPicture(t, manual, name+"-"+scheme+".png", picture)
		}
	}

	take("sign-in", 480, 460, `document.body.innerText.includes("Sign in to continue")`)
	w.click(".button")
	w.signIn(gatewaytest.UserID)
	w.shows("Only for users")
	w.goTo("/paid")
	take("balance", 480, 600, `document.body.innerText.includes("750.00")`)
	w.goTo("/page")
	w.isIn("user123", "750.00")
	take("element", 840, 172, part("value")+".checkVisibility()")
}

// manualText is the text of the README and of the pages below docs.
func manualText(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, file := range append(files, "../README.md") {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	return text.String()
}

// keepPicture compresses a picture, and writes it where that is wanted; else it looks
// at the one that is there.
func keepPicture(t *testing.T, manual, name string, picture []byte) {
	t.Helper()
	taken, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(picturesFolder, name)
	if os.Getenv("TOLLGATE_UPDATE_PICTURES") != "" {
		var small bytes.Buffer
		encoder := png.Encoder{CompressionLevel: png.BestCompression}
		if err := encoder.Encode(&small, withFewColours(taken)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, small.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; `make pictures` makes it", err)
	}
	config, err := png.DecodeConfig(bytes.NewReader(kept))
	if err != nil {
		t.Fatal(err)
	}
	if bounds := taken.Bounds(); config.Width != bounds.Dx() || config.Height != bounds.Dy() {
		t.Errorf("%s measures %dx%d, want %v; `make pictures` makes it anew", name, config.Width, config.Height, bounds.Size())
	}
	if len(kept) > maxPicture {
		t.Errorf("%s has %d bytes", name, len(kept))
	}
	if !strings.Contains(manual, "pictures/"+name) {
		t.Errorf("neither the README nor docs shows %s", name)
	}
}

// withFewColours keeps the colours that a picture has most of: ours have few, and many
// on the edges of letters, where nobody sees the next best.
func withFewColours(picture image.Image) image.Image {
	count := map[color.Color]int{}
	bounds := picture.Bounds()
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			count[picture.At(x, y)]++
		}
	}
	palette := color.Palette(slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int { return count[b] - count[a] }))
	few := image.NewPaletted(bounds, palette[:min(96, len(palette))])
	draw.Draw(few, bounds, picture, bounds.Min, draw.Src)
	return few
}
