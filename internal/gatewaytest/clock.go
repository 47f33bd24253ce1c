package gatewaytest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	siteclock "github.com/caddy-tollgate/tollgate/internal/clock"
)

// AsShipped is a timeout of a Clock that is the one that users have.
const AsShipped time.Duration = -1

// Clock is the clock of a site. It changes only when a test moves it on, so that a slow
// machine changes no result. Set the fields before the configuration is loaded.
type Clock struct {
	// Lease is how long a lock between processes lasts that is not renewed. 0: as usual.
	Lease time.Duration
	// AuthTimeout is how long an auth check may take, and StoreTimeout an access of the store.
	// 0: longer than a busy machine takes.
	AuthTimeout, StoreTimeout time.Duration
	began                     time.Time // zero: the clock runs
	moved                     atomic.Int64
}

// NewClock returns a clock that shows the present time.
func NewClock() *Clock { return &Clock{began: time.Now().Round(0)} }

// Now returns the time.
func (c *Clock) Now() time.Time {
	began := c.began
	if began.IsZero() {
		began = time.Now()
	}
	return began.Add(time.Duration(c.moved.Load()))
}

// clocks holds the clocks of the configurations of this process, by number: a
// configuration is text.
var (
	clocks    sync.Map
	lastClock atomic.Int64
)

// addTo adds the clock to a configuration.
func (c *Clock) addTo(config []byte) ([]byte, error) {
	var parsed map[string]any
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, err
	}
	number := lastClock.Add(1)
	clocks.Store(number, c)
	parsed["apps"].(map[string]any)[siteclock.App] = clockApp{Number: number}
	return json.Marshal(parsed)
}

// clockApp is the Caddy app that gives the sites of a configuration their clock.
type clockApp struct {
	Number int64 `json:"number"`
	clock  *Clock
}

func init() { caddy.RegisterModule(clockApp{}) }

// CaddyModule returns the Caddy module information.
func (clockApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: siteclock.App, New: func() caddy.Module { return new(clockApp) }}
}

// Provision finds the clock.
func (a *clockApp) Provision(caddy.Context) error {
	found, ok := clocks.Load(a.Number)
	if !ok {
		return fmt.Errorf("there is no clock %d", a.Number)
	}
	a.clock = found.(*Clock)
	return nil
}

// Start implements caddy.App.
func (a *clockApp) Start() error { return nil }

// Stop implements caddy.App.
func (a *clockApp) Stop() error { return nil }

// Now implements siteclock.Clock, as Lease and AuthTimeout do.
func (a *clockApp) Now() time.Time { return a.clock.Now() }

// Lease returns the clock's.
func (a *clockApp) Lease() time.Duration { return a.clock.Lease }

// AuthTimeout returns the clock's.
func (a *clockApp) AuthTimeout() time.Duration { return timeout(a.clock.AuthTimeout) }

// StoreTimeout returns the clock's.
func (a *clockApp) StoreTimeout() time.Duration { return timeout(a.clock.StoreTimeout) }

func timeout(d time.Duration) time.Duration { return max(0, cmp.Or(d, Patience)) }

// SecretsInterval is short, so that no test waits long for a changed file.
func (a *clockApp) SecretsInterval() time.Duration { return 20 * time.Millisecond }

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) { c.moved.Add(int64(d)) }
