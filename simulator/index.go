package simulator

import "net/http"

// index says what this is, to whoever opens it in a browser.
func (p *Provider) index(w http.ResponseWriter, r *http.Request) {
	user, signedIn := p.signedIn(r)
	showPage(w, http.StatusOK, "index.html", map[string]any{
		"Title":     "Simulator",
		"Users":     p.Users(),
		"User":      user,
		"SignedIn":  signedIn,
		"CanChange": p.options.AutoLogin == "",
		"Login":     LoginPath,
		"Logout":    LogoutPath,
		"TopUp":     TopUpPagePath,
		"Endpoints": []struct{ Method, Path, Purpose string }{
			{"GET", AuthorizePath, "the user signs in and allows; the browser returns with a code"},
			{"POST", TokenPath, "a code or a refresh token for tokens"},
			{"GET", UserInfoPath, "who the user is, and the balance"},
			{"GET", TopUpPath, "where the user can add money"},
			{"POST", RevokePath, "ends a login (RFC 7009; not in the provider's document)"},
			{"POST", AppsPath, "registers an application, with a developer token"},
		},
	})
}
