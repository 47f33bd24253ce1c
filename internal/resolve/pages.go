package resolve

import (
	"errors"
	"fmt"
	"os"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/web"
)

// Look is how the gateway's own pages look.
type Look struct {
	Brand, Logo, Accent string
	Folder              string // of the operator's own templates
}

// Pages reads the look of the gateway's own pages. builtin replaces the operator's own
// templates if these fail. It is nil if the operator has no templates.
func Pages(r *config.Resolver, l Look) (brand string, pages, builtin *web.Pages) {
	brand = r.Text("brand", l.Brand, "")
	options := web.Options{Logo: logo(r, l.Logo, brand), Accent: accent(r, l.Accent)}
	folder := r.Text("pages", l.Folder, "")
	if r.Err != nil {
		return brand, nil, nil
	}
	var err error
	if folder != "" {
		if builtin, err = web.New(options); err != nil {
			r.Check("pages", l.Folder, err)
			return brand, nil, nil
		}
		options.Folder = os.DirFS(folder)
	}
	pages, err = web.New(options)
	if unknown, ok := errors.AsType[*web.UnknownFileError](err); ok {
		err = fmt.Errorf("%w%s", err, config.DidYouMean(unknown.Name, unknown.Known))
	}
	if err != nil {
		r.Check("pages", l.Folder, fmt.Errorf("%s: %w", folder, err))
	}
	return brand, pages, builtin
}

func logo(r *config.Resolver, raw, brand string) web.Logo {
	const setting = "logo"
	file := r.Text(setting, raw, "")
	if r.Err != nil || file == "" {
		return web.Logo{}
	}
	if brand == "" {
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

func accent(r *config.Resolver, raw string) web.Accent {
	const setting = "accent"
	text := r.Text(setting, raw, "")
	if r.Err != nil || text == "" {
		return web.Accent{}
	}
	accent, err := web.ParseAccent(text)
	r.Check(setting, raw, err)
	return accent
}
