package tollgate

import (
	"errors"
	"fmt"
	"os"

	"github.com/caddy-tollgate/tollgate/web"
)

// resolvePages reads where people go, and what the gateway's own pages look like.
func (s *settings) resolvePages(r *resolver, h *Handler) {
	s.afterLogin = r.path("after_login", h.AfterLogin, defaultAfterLogin)
	s.afterLogout = r.path("after_logout", h.AfterLogout, "")
	s.errorPath = r.path("error_redirect", h.ErrorRedirect, "")
	s.brand = r.text("brand", h.Brand, "")
	options := web.Options{Logo: s.resolveLogo(r, h.Logo), Accent: resolveAccent(r, h.Accent)}
	folder := r.text("pages", h.Pages, "")
	if r.err != nil {
		return
	}
	var err error
	if folder != "" {
		if s.builtinPages, err = web.New(options); err != nil {
			r.check("pages", h.Pages, err)
			return
		}
		options.Folder = os.DirFS(folder)
	}
	s.pages, err = web.New(options)
	if unknown, ok := errors.AsType[*web.UnknownFileError](err); ok {
		err = fmt.Errorf("%w%s", err, didYouMean(unknown.Name, unknown.Known))
	}
	if err != nil {
		r.check("pages", h.Pages, fmt.Errorf("%s: %w", folder, err))
	}
}

func (s *settings) resolveLogo(r *resolver, raw string) web.Logo {
	const setting = "logo"
	file := r.text(setting, raw, "")
	if r.err != nil || file == "" {
		return web.Logo{}
	}
	if s.brand == "" {
		r.fail(setting, "needs brand: the name that it stands for")
	}
	picture, err := os.ReadFile(file) //nolint:gosec // the file that the operator names
	if err != nil {
		r.check(setting, raw, err)
		return web.Logo{}
	}
	logo, err := web.ParseLogo(picture)
	if err != nil {
		r.check(setting, raw, fmt.Errorf("%s %w", file, err))
	}
	return logo
}

func resolveAccent(r *resolver, raw string) web.Accent {
	const setting = "accent"
	text := r.text(setting, raw, "")
	if r.err != nil || text == "" {
		return web.Accent{}
	}
	accent, err := web.ParseAccent(text)
	r.check(setting, raw, err)
	return accent
}
