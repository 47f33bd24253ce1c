package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"

	"github.com/chromedp/chromedp"
)

// chromium is the one browser process of all tests. Each test has a profile of its
// own in it, as a private window has.
var chromium process

// process is a Chromium that starts when it is first needed.
type process struct {
	once sync.Once
	ctx  context.Context // of chromedp, for the whole browser
	stop func()
	err  error
}

func (p *process) context() (context.Context, error) {
	p.once.Do(func() { p.err = p.start() })
	return p.ctx, p.err
}

// start runs Chromium with an empty profile, which chromedp removes again. Popups are
// blocked as they are for people: where no click asked for them.
func (p *process) start() error {
	path, err := findChromium()
	if err != nil {
		return err
	}
	allocator, freeAllocator := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.Headless,
		chromedp.NoSandbox, // tests run as root
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("screen-info", "{1600x1200}"), // one that a popup of 500x600 fits on
	)
	ctx, closeBrowser := chromedp.NewContext(allocator)
	p.ctx = ctx
	p.stop = func() {
		closeBrowser()
		freeAllocator()
	}
	if err := chromedp.Run(ctx); err != nil {
		p.stop()
		p.stop = nil
		return fmt.Errorf("starting %s: %w", path, err)
	}
	return nil
}

func (p *process) close() {
	if p.stop != nil {
		p.stop()
	}
}

var errNoChromium = errors.New("the browser tests need Chromium, as chromium, chromium-browser or google-chrome in the PATH; on Debian: apt-get install chromium")

func findChromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoChromium
}
