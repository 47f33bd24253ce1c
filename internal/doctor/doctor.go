// Package doctor examines a configuration before people do: what the provider, the session
// store and the site's own routes answer to it. It names what is wrong, and what to do.
//
// The checks are a table. Each asks or looks, and returns findings. They change nothing, and
// no finding contains a secret. Begin with Examine.
package doctor

import (
	"context"
	"fmt"
	"time"
)

// Options are what the operator knows and the configuration does not say.
type Options struct {
	// Site is the host of the site to examine. Empty: all sites.
	Site string
	// ProxyBuffer is the size of the response header that the proxy in front accepts, in
	// bytes. Zero: that of nginx by default, if there is a proxy in front.
	ProxyBuffer int
	// TokenBytes is the length of the provider's access tokens.
	TokenBytes int
}

// checkTimeout limits each check beside the timeouts of its requests.
const checkTimeout = 30 * time.Second

// check is one row of the table.
type check struct {
	name string
	run  func(context.Context, *examination) []Finding
}

// checks are all checks of a site, in the order of a request: from the configuration to the
// provider, the store and the upstream.
var checks = []check{
	{"secret", checkSecret},
	{"client secret", checkClientSecret},
	{"redirect_uri", checkRedirectURI},
	{"other sites", checkOtherSites},
	{"cookies", checkCookies},
	{"trusted proxies", checkTrustedProxies},
	{"proxy buffers", checkProxyBuffers},
	{"authorization endpoint", checkAuthorization},
	{"token endpoint", checkToken},
	{"other endpoints", checkOtherEndpoints},
	{"clock", checkClock},
	{"session store", checkStore},
	{"upstream", checkUpstream},
}

// examination is one site under examination.
type examination struct {
	*Site
	options       Options
	configuration *Configuration
	provider      *provider
}

// Examine runs all checks of the chosen sites.
func Examine(ctx context.Context, c *Configuration, options Options) []Finding {
	var all []Finding
	for _, site := range c.Named(options.Site) {
		e := &examination{Site: site, options: options, configuration: c, provider: newProvider(site.Client)}
		for _, check := range checks {
			all = append(all, e.findingsOf(ctx, check)...)
		}
		e.provider.close()
	}
	return all
}

// heading names the site in the report: by its origin, and by its address if another site has
// the same origin.
func (e *examination) heading() string {
	for _, other := range e.others {
		if other.Origin == e.Origin {
			return fmt.Sprintf("%s (the site %s)", e.Origin, e.Place())
		}
	}
	return e.Origin
}

func (e *examination) findingsOf(ctx context.Context, c check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	findings := c.run(ctx, e)
	for i := range findings {
		findings[i].Site = e.heading()
		if findings[i].Check == "" {
			findings[i].Check = c.name
		}
	}
	return findings
}
