package tollgate

import (
	"github.com/maypok86/otter/v2"
)

// destinations remember where logins lead whose cookie cannot tell: those that were
// dropped from a browser with many tabs, those that were used, and those whose return
// path does not fit into a cookie. They are remembered in this process only. Another
// gateway, and this one after a restart, leads to after_login instead.
//
// A login is found by the hash of its state, so that only who has the state learns
// where it led. What is found is a clean return path.
type destinations struct {
	paths *otter.Cache[string, string]
}

const (
	// maxDestinationBytes bounds the memory of one site. Anybody can begin logins, and
	// may so displace what is remembered of others: these end at after_login.
	maxDestinationBytes = 16 << 20
	// destinationOverhead is what one entry takes besides its path.
	destinationOverhead = 256
)

func newDestinations() *destinations {
	return &destinations{otter.Must(&otter.Options[string, string]{
		MaximumWeight:    maxDestinationBytes,
		Weigher:          func(_, path string) uint32 { return uint32(len(path)) + destinationOverhead },
		ExpiryCalculator: otter.ExpiryWriting[string, string](loginMemory),
	})}
}

// remember keeps the return path of a login.
func (d *destinations) remember(flow, returnPath string) { d.paths.Set(flow, returnPath) }

// of gives the return path of a login. ok is false if it is not remembered.
func (d *destinations) of(flow string) (returnPath string, ok bool) {
	return d.paths.GetIfPresent(flow)
}

func (d *destinations) close() { d.paths.StopAllGoroutines() }
