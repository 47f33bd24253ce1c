package simulator

import "net/http"

// index serves a page that explains the simulator.
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
			{"POST", TokenPath, "exchanges a code or a refresh token for tokens"},
			{"GET", UserInfoPath, "returns the user and the balance"},
			{"GET", TopUpPath, "returns the URL of the page where the user can add money"},
			{"POST", RevokePath, "ends a login (RFC 7009; not in the provider's document)"},
			{"POST", AppsPath, "registers an application, with a developer token"},
		},
	})
}
