package browser

import (
	"github.com/maypok86/otter/v2"
)

// Destinations remember where logins lead whose cookie cannot tell: those that were
// dropped from a browser with many tabs, those that were used, and those whose return
// path does not fit into a cookie. They are remembered in this process only. Another
// gateway, and this one after a restart, leads to after_login instead.
//
// A login is found by the hash of its state, so that only who has the state learns
// where it led. What is found is a clean return path.
type Destinations struct {
	Paths *otter.Cache[string, string]
}

const (
	// MaxDestinationBytes bounds the memory of one site. Anybody can begin logins, and
	// may so displace what is remembered of others: these end at after_login.
	MaxDestinationBytes = 16 << 20
	// destinationOverhead is what one entry takes besides its path.
	destinationOverhead = 256
)

func NewDestinations() *Destinations {
	return &Destinations{otter.Must(&otter.Options[string, string]{
		MaximumWeight:    MaxDestinationBytes,
		Weigher:          func(_, path string) uint32 { return uint32(len(path)) + destinationOverhead },
		ExpiryCalculator: otter.ExpiryWriting[string, string](loginMemory),
	})}
}

// Remember keeps the return path of a login.
func (d *Destinations) Remember(flow, returnPath string) { d.Paths.Set(flow, returnPath) }

// Of gives the return path of a login. ok is false if it is not remembered.
func (d *Destinations) Of(flow string) (returnPath string, ok bool) {
	return d.Paths.GetIfPresent(flow)
}

func (d *Destinations) Close() { d.Paths.StopAllGoroutines() }
