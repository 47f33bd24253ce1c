package starting

import "go.uber.org/zap"

// Warnings are what a configuration does that its operator may not want.
type Warnings struct {
	// TrustsEverybody reports whether forward_auth trusts every address.
	TrustsEverybody bool
	// Gaps are texts about paths that are less protected than the operator may think.
	Gaps []string
	// LogoutNeedsLogin is after_logout, if that path leads to the next sign-in.
	LogoutNeedsLogin string
	// CrossSiteCookie reports whether browsers send the session cookie from other sites.
	CrossSiteCookie bool
	// TokenIsLogged reports whether Caddy's logs may show the access token.
	TokenIsLogged bool
}

// Log writes a line for each warning.
func (w Warnings) Log(logger *zap.Logger) {
	if w.TrustsEverybody {
		logger.Warn("forward_auth.trusted_proxies trusts every address: any client can claim a public path and so pass without a login; list only your proxies")
	}
	for _, gap := range w.Gaps {
		logger.Warn(gap)
	}
	if w.LogoutNeedsLogin != "" {
		logger.Warn("after_logout needs a login, so signing out leads straight to the provider's sign-in: "+
			"add the path to `public` or `optional`, set `login_page on`, or remove `after_logout`",
			zap.String("after_logout", w.LogoutNeedsLogin))
	}
	if w.CrossSiteCookie {
		logger.Warn("session.same_site none: browsers send the session cookie with requests from every other site, " +
			"so the application must protect its own forms and calls against cross-site request forgery")
	}
	if w.TokenIsLogged { // without the header's name: somebody may have written a secret there
		logger.Warn("pass_access_token: Caddy hides the header Authorization in its logs, but no header of another name, so they may show access tokens: " +
			"use Authorization, or remove the header from the logs with a filter")
	}
}
