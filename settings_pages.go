package tollgate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/web"
)

// newSDK creates the script that the application's pages load. It contains the paths of this
// site's endpoints.
func (s *settings) newSDK() (*web.SDK, error) {
	return web.NewSDK(web.Endpoints{
		Start:    s.endpoints["start"],
		Userinfo: s.endpoints["userinfo"],
		Refresh:  s.endpoints["refresh"],
		Topup:    s.topupURL(),
		Logout:   s.endpoints["logout"],
	})
}

// resolvePages reads the pages after a sign-in, a sign-out or an error, and the look of the
// gateway's own pages.
func (s *settings) resolvePages(r *config.Resolver, h *Handler) {
	s.loginPage = h.LoginPage
	s.afterLogin = r.Path("after_login", h.AfterLogin, defaultAfterLogin)
	s.afterLogout = r.Path("after_logout", h.AfterLogout, "")
	s.errorPath = r.Path("error_redirect", h.ErrorRedirect, "")
	s.brand = r.Text("brand", h.Brand, "")
	options := web.Options{Logo: s.resolveLogo(r, h.Logo), Accent: resolveAccent(r, h.Accent)}
	folder := r.Text("pages", h.Pages, "")
	if r.Err != nil {
		return
	}
	var err error
	if folder != "" {
		if s.builtinPages, err = web.New(options); err != nil {
			r.Check("pages", h.Pages, err)
			return
		}
		options.Folder = os.DirFS(folder)
	}
	s.pages, err = web.New(options)
	if unknown, ok := errors.AsType[*web.UnknownFileError](err); ok {
		err = fmt.Errorf("%w%s", err, config.DidYouMean(unknown.Name, unknown.Known))
	}
	if err != nil {
		r.Check("pages", h.Pages, fmt.Errorf("%s: %w", folder, err))
	}
}

func (s *settings) resolveLogo(r *config.Resolver, raw string) web.Logo {
	const setting = "logo"
	file := r.Text(setting, raw, "")
	if r.Err != nil || file == "" {
		return web.Logo{}
	}
	if s.brand == "" {
		r.Fail(setting, "needs `brand`, which is the text for users who do not see the picture")
	}
	picture, err := os.ReadFile(file) //nolint:gosec // the file that the operator names
	if err != nil {
		r.Check(setting, raw, err)
		return web.Logo{}
	}
	logo, err := web.ParseLogo(picture)
	if err != nil {
		r.Check(setting, raw, fmt.Errorf("%s %w", file, err))
	}
	return logo
}

func resolveAccent(r *config.Resolver, raw string) web.Accent {
	const setting = "accent"
	text := r.Text(setting, raw, "")
	if r.Err != nil || text == "" {
		return web.Accent{}
	}
	accent, err := web.ParseAccent(text)
	r.Check(setting, raw, err)
	return accent
}

// resolveDestinations prevents redirect loops: error_redirect must be a page without login,
// and no page may be an endpoint that starts a sign-in. A setting is refused only if it is
// certainly wrong.
func (s *settings) resolveDestinations(r *config.Resolver, h *Handler) {
	for _, page := range []struct{ setting, raw, path string }{
		{"after_login", h.AfterLogin, s.afterLogin}, {"after_logout", h.AfterLogout, s.afterLogout}, {"error_redirect", h.ErrorRedirect, s.errorPath},
	} {
		if name := s.endpointAt(page.path); name == "start" || name == "callback" {
			r.Check(page.setting, page.raw, fmt.Errorf("%q is the endpoint %s, which would start the next sign-in: set a page of your application", page.path, name))
		}
	}
	// Requests that the matcher does not select are public. Which ones is unknown here.
	if r.Err == nil && len(h.Match) == 0 && s.needsLogin(s.errorPath) {
		r.Check("error_redirect", h.ErrorRedirect, fmt.Errorf(
			"%q needs a login, so a failed sign-in would start the next one: add the path to `public` or `optional`", s.errorPath))
	}
}

// endpointAt returns the name of the endpoint whose path a configured page has. Returns "" if
// the page is not an endpoint.
func (s *settings) endpointAt(page string) string {
	u, err := url.Parse(page)
	if err != nil {
		return ""
	}
	for name, path := range s.endpoints {
		if path == u.Path {
			return name
		}
	}
	return ""
}

// needsLogin reports whether a configured page is protected: it is not an endpoint, not
// public and not optional. Directives that run earlier may change the path; that is not
// known here.
func (s *settings) needsLogin(page string) bool {
	u, err := url.Parse(page)
	if page == "" || err != nil || s.endpointAt(page) != "" {
		return false
	}
	rt, err := newRoutes(caddy.Context{}, s.endpoints, s.public, s.optional)
	if err != nil {
		return false
	}
	request := &http.Request{Method: http.MethodGet, URL: u}
	// Caddy's path matcher reads placeholders in patterns.
	d, ok := rt.Demand(u, request.WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())))
	return ok && d.Access == policy.AccessProtected
}

// warnOfDestinations warns if signing out leads to the next sign-in. With a sign-in page the
// operator may want that.
func (h *Handler) warnOfDestinations() {
	if len(h.matchers) == 0 && h.settings.needsLogin(h.settings.afterLogout) && !h.LoginPage {
		h.logger.Warn("after_logout needs a login, so signing out leads straight to the provider's sign-in: "+
			"add the path to `public` or `optional`, set `login_page on`, or remove `after_logout`",
			zap.String("after_logout", h.settings.afterLogout))
	}
}

// warnOfSameSite warns about the risk of same_site none.
func (h *Handler) warnOfSameSite() {
	if h.settings.cookies.SameSite == http.SameSiteNoneMode {
		h.logger.Warn("session.same_site none: browsers send the session cookie with requests from every other site, " +
			"so the application must protect its own forms and calls against cross-site request forgery")
	}
}
