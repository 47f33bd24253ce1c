package tollgate

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// causeTopupFailed is the error code where the provider does not say where to top up.
const causeTopupFailed = "topup_failed"

// serveTopup leads to where the user can top up. What the provider answers is
// checked; the balance is re-read before its next use.
func (h *Handler) serveTopup(w http.ResponseWriter, r *http.Request, v *visit) error {
	if h.client.TopupEndpoint == "" {
		return writeProblem(w, r, problem{Title: "There is no way to top up here", Status: http.StatusNotFound, Error: "no_topup"})
	}
	var location string
	err := h.withAccessToken(r.Context(), v.session, func(access string) (err error) {
		location, err = h.client.TopupURL(r.Context(), access)
		return err
	})
	v.dead = errors.Is(err, session.ErrEnded)
	switch {
	case v.dead, h.needsSignInAfter(err, v.session):
		return h.demandLogin(w, r, v)
	case err != nil:
		h.logger.Warn("the provider gave no top-up URL that can be used", zap.String("session", v.session.ID.Hash()), zap.Error(err))
		if isDefinite(err) {
			return h.writeTopupFailed(w, r)
		}
		return h.writeUnavailable(w, r, h.returnPathOf(r))
	}
	h.users.AwaitMoney(v.session)
	if browser.WantsJSON(r) {
		return writeJSON(w, r, http.StatusOK, typeJSON, map[string]string{"topup_url": location})
	}
	return redirect(w, http.StatusSeeOther, location)
}

// isDefinite reports whether the provider answered, and would answer the same again: a
// refusal, or an answer under a good status that cannot be used.
func isDefinite(err error) bool {
	pe, ok := errors.AsType[*oauth.Error](err)
	if !ok {
		return false
	}
	return pe.Status == http.StatusOK || pe.Kind == oauth.FailureRefused || pe.Kind == oauth.FailureUnauthorized
}

// writeTopupFailed answers that there is no top-up URL to lead to. The page leads back to
// the site: a sign-in would not help.
func (h *Handler) writeTopupFailed(w http.ResponseWriter, r *http.Request) error {
	if !browser.IsNavigation(r) {
		return writeProblem(w, r, problem{Title: "The provider gave no top-up URL that can be used", Status: http.StatusBadGateway, Error: causeTopupFailed})
	}
	return h.writePage(w, r, http.StatusBadGateway, pageError, pageData{cause: causeTopupFailed, signedIn: true})
}

// resolveTopupHosts reads the hosts of topup_hosts, in the form that HostAndPort gives.
func (s *settings) resolveTopupHosts(r *config.Resolver, raw []string) {
	const setting = "topup_hosts"
	if len(raw) > 0 && r.Err == nil && s.client.TopupEndpoint == "" {
		r.Fail(setting, "has no effect: there is no topup_endpoint")
	}
	for i, text := range r.Texts(setting, raw) {
		host, err := parseHost(text)
		r.Check(setting, raw[i], err)
		if r.Err == nil {
			s.client.TopupHosts = append(s.client.TopupHosts, host)
		}
	}
}

// parseHost reads a host with an optional port, as it stands in an https URL.
func parseHost(text string) (string, error) {
	u, err := url.Parse("https://" + text)
	if err != nil || u.User != nil || u.Host != text || strings.HasSuffix(text, ":") {
		return "", fmt.Errorf("%q is not a host such as pay.example.com or pay.example.com:8443", text)
	}
	if _, err := origin.CanonicalHost(u.Hostname()); err != nil {
		return "", err
	}
	return origin.HostAndPort(u), nil
}
