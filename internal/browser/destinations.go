package browser

import (
	"github.com/maypok86/otter/v2"
)

// Destinations remembers the return paths of logins whose cookie does not hold it: logins
// that were dropped from a browser with many tabs, logins that were used, and logins whose
// return path does not fit into a cookie. The memory is per process. Another gateway, and
// this one after a restart, redirects to after_login instead.
//
// The key is the hash of the login's state, so only a caller that has the state learns the
// return path. All return paths in it have passed origin.CleanPath.
type Destinations struct {
	paths *otter.Cache[string, Destination]
}

// Destination is the memory of one login.
type Destination struct {
	ReturnPath string
	Popup      bool
	Nonce      string // of the popup's opener
	// Dropped is true if the login's cookie was deleted to make room for newer ones.
	Dropped bool
	// OtherHost is true if the login began under another host than redirect_uri's.
	OtherHost bool
	// restarted is true if the dropped login has been started again.
	restarted bool
}

// DestinationOf returns the destination of a login. It is not marked as dropped.
func DestinationOf(l *Login) Destination {
	return Destination{ReturnPath: l.ReturnPath, Popup: l.Popup, Nonce: l.Nonce}
}

const (
	// maxDestinationBytes limits the memory of one site, in bytes. Anybody can start
	// logins and so displace the entries of other people. Their logins then end at
	// after_login.
	maxDestinationBytes = 16 << 20
	// destinationOverhead is the memory of one entry without its path, in bytes.
	destinationOverhead = 256
)

// NewDestinations returns an empty memory. Call Close when it is no longer used.
func NewDestinations() *Destinations {
	return &Destinations{otter.Must(&otter.Options[string, Destination]{
		MaximumWeight: maxDestinationBytes,
		Weigher: func(_ string, d Destination) uint32 {
			return uint32(len(d.ReturnPath)+len(d.Nonce)) + destinationOverhead
		},
		ExpiryCalculator: otter.ExpiryWriting[string, Destination](loginMemory),
	})}
}

// Remember stores where a login leads. flow comes from FlowOf.
func (d *Destinations) Remember(flow string, to Destination) { d.paths.Set(flow, to) }

// Of returns where a login leads. ok is false if it is not stored here.
func (d *Destinations) Of(flow string) (to Destination, ok bool) {
	return d.paths.GetIfPresent(flow)
}

// Close stops the goroutines of the memory.
func (d *Destinations) Close() { d.paths.StopAllGoroutines() }
