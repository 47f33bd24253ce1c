package tollgate

import (
	"errors"
	"fmt"
	"os"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/web"
)

// resolvePages reads where people go, and what the gateway's own pages look like.
func (s *settings) resolvePages(r *config.Resolver, h *Handler) {
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
		r.Fail(setting, "needs brand: the name that it stands for")
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
