// Package clock gives a site its clock: the system's, unless a test has put another one
// into the configuration. Other packages take the clock in their constructors. Begin with
// Of.
package clock

import (
	"time"

	"github.com/caddyserver/caddy/v2"
)

// App names the Caddy app that a configuration of a test contains to have a clock of its
// own. No module of that name is part of tollgate, so Caddy refuses any other
// configuration with such an app.
const App = "tollgate_clock"

// Clock is what the app of a test implements.
type Clock interface {
	// Now returns the time.
	Now() time.Time
	// Lease returns how long a lock between processes lasts that is not renewed, or 0 for
	// the usual time.
	Lease() time.Duration
	// AuthTimeout returns how long an auth check may take, or 0 for the usual time.
	AuthTimeout() time.Duration
	// StoreTimeout returns how long one access of a store on a server may take, or 0 for the
	// usual time.
	StoreTimeout() time.Duration
	// SecretsInterval returns how often the files of secrets are looked at, or 0 for the
	// usual interval.
	SecretsInterval() time.Duration
}

// Of returns the clock of the configuration that is being loaded.
func Of(ctx caddy.Context) Clock {
	if app, err := ctx.AppIfConfigured(App); err == nil {
		if c, ok := app.(Clock); ok {
			return c
		}
	}
	return system{}
}

// system is the clock of every configuration but those of tests.
type system struct{}

func (system) Now() time.Time                 { return time.Now() }
func (system) Lease() time.Duration           { return 0 }
func (system) AuthTimeout() time.Duration     { return 0 }
func (system) StoreTimeout() time.Duration    { return 0 }
func (system) SecretsInterval() time.Duration { return 0 }
