// Package starting has what a site says in the log when its configuration is loaded, and runs
// what looks at the network only after Caddy has started.
//
// Provisioning a site uses no network, and `caddy validate` provisions, too. Begin with
// Site.Log and AfterStart.
package starting

import (
	"context"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Site is what the line about a site says.
type Site struct {
	// Provider is the provider's name, and Store the name of the session store.
	Provider, Store string
	// Secrets are the secrets as they are configured.
	Secrets []string
	// On has the options, and whether each is used.
	On []Option
}

// Option is an option of the site.
type Option struct {
	Name string
	Used bool
}

// Log writes the line. The logger has the field "site". The line contains no value that may be a secret.
func (s Site) Log(logger *zap.Logger) {
	on := []string{}
	for _, option := range s.On {
		if option.Used {
			on = append(on, option.Name)
		}
	}
	logger.Info("site is configured", zap.String("provider", s.Provider),
		zap.String("store", s.Store), zap.String("secret_from", secretOrigin(s.Secrets)), zap.Strings("on", on))
}

// secretOrigin says where the current secret comes from. A secret from `{$NAME}` counts as
// config: Caddy has put it into the configuration.
func secretOrigin(texts []string) string {
	switch {
	case len(texts) == 0:
		return "storage"
	case strings.Contains(texts[0], "{file."):
		return "file"
	case strings.Contains(texts[0], "{env."):
		return "env"
	default:
		return "config"
	}
}

// storeTimeout limits the look at the session store.
const storeTimeout = 10 * time.Second

// Look returns the look at a session store, which logs a warning if the store is not ready.
func Look(store session.Store, name string, logger *zap.Logger) func(context.Context) {
	return func(ctx context.Context) {
		defer store.Hold()()
		limited, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		if err := store.Ready(limited); err != nil && ctx.Err() == nil {
			logger.Warn("the session store cannot be used: nobody can sign in, and signed-in users get 503; see whether it runs, and whether this machine can reach it and write to it",
				zap.String("store", name), zap.Error(err))
		}
	}
}

// app is the Caddy app that runs the looks of a configuration. Caddy provisions apps for
// `caddy validate`, too, but starts them only to run the configuration.
type app struct {
	looks []func(context.Context)
	stop  context.CancelFunc
}

// appName names the app. No configuration has to contain it.
const appName = "tollgate_start"

func init() { caddy.RegisterModule(new(app)) }

// CaddyModule returns the Caddy module information.
func (*app) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(app) }}
}

// Start implements caddy.App. It does not wait for the looks.
func (a *app) Start() error {
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	for _, look := range a.looks {
		go look(ctx) // ends with its own timeout, or with Stop
	}
	return nil
}

// Stop implements caddy.App.
func (a *app) Stop() error {
	a.stop()
	return nil
}

// AfterStart runs look in the background when Caddy has started the configuration that is
// being loaded. Its context ends when the configuration stops.
func AfterStart(ctx caddy.Context, look func(context.Context)) error {
	loaded, err := ctx.App(appName)
	if err != nil {
		return err
	}
	started := loaded.(*app)
	started.looks = append(started.looks, look)
	return nil
}

// Interface guard.
var _ caddy.App = (*app)(nil)
