package e2e

import (
	"testing"

	demo "github.com/caddy-tollgate/tollgate/internal/command"
	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
)

// TestTheDemoSendsTwentyCallsAtOnce clicks on the demo's button as somebody with 3.20,
// which pays for six calls.
func TestTheDemoSendsTwentyCallsAtOnce(t *testing.T) {
	commands := commandtest.Commands(demo.AddCommands)
	r := commands.Start(t, "Ctrl-C stops the demo", "demo", "--listen", "127.0.0.1:0")
	s := &site{t: t, url: r.Between("Open   ", "/\n"), providerURL: r.Between("simulated AIHubMix at ", ".\n")}
	p := s.newPerson()
	p.expect("402 (Payment Required)")
	w := p.open("/")
	w.signIn("67890")
	w.shows("3.20")
	w.click("#twenty")
	w.shows("6 of 20 calls were answered, and 14 got 402. The balance is 0.20.")
	if got := evaluate[string](w, `document.querySelector("#balance").textContent`); got != "0.20" {
		t.Errorf("the page shows the balance %s, want 0.20", got)
	}
}
