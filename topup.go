package tollgate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// causeTopupFailed is the error code where the provider does not say where to top up.
const causeTopupFailed = "topup_failed"

// serveTopup leads to where the user can top up. What the provider answers is
// checked; the balance is re-read before its next use.
func (h *Handler) serveTopup(w http.ResponseWriter, r *http.Request, v *visit) error {
	if h.client.topupEndpoint == "" {
		return writeProblem(w, r, problem{Title: "There is no way to top up here", Status: http.StatusNotFound, Error: "no_topup"})
	}
	var location string
	err := h.withAccessToken(r.Context(), v.session, func(access string) (err error) {
		location, err = h.client.topupURL(r.Context(), access)
		return err
	})
	v.dead = errors.Is(err, errSessionEnded)
	switch {
	case v.dead, h.needsSignInAfter(err, v.session):
		return h.demandLogin(w, r, v)
	case err != nil:
		h.logger.Warn("the provider gave no top-up URL that can be used", zap.String("session", v.session.id.hash()), zap.Error(err))
		if isDefinite(err) {
			return h.writeTopupFailed(w, r)
		}
		return h.writeUnavailable(w, r, h.returnPathOf(r))
	}
	h.users.awaitMoney(v.session)
	if wantsJSON(r) {
		return writeJSON(w, r, http.StatusOK, typeJSON, map[string]string{"topup_url": location})
	}
	return redirect(w, http.StatusSeeOther, location)
}

// isDefinite reports whether the provider answered, and would answer the same again: a
// refusal, or an answer under a good status that cannot be used.
func isDefinite(err error) bool {
	pe, ok := errors.AsType[*providerError](err)
	if !ok {
		return false
	}
	return pe.status == http.StatusOK || pe.kind == failureRefused || pe.kind == failureUnauthorized
}

// writeTopupFailed answers that there is no top-up URL to lead to. The page leads back to
// the site: a sign-in would not help.
func (h *Handler) writeTopupFailed(w http.ResponseWriter, r *http.Request) error {
	if !isNavigation(r) {
		return writeProblem(w, r, problem{Title: "The provider gave no top-up URL that can be used", Status: http.StatusBadGateway, Error: causeTopupFailed})
	}
	return h.writePage(w, r, http.StatusBadGateway, pageError, pageData{cause: causeTopupFailed, signedIn: true})
}

// topupURL asks where the user can top up. Only an https URL, or an http one on loopback,
// is ever given out, and only one on a host of topup_hosts where these are configured.
func (c *oauthClient) topupURL(ctx context.Context, access string) (string, error) {
	body, err := c.get(ctx, endpointTopup, c.topupEndpoint, access)
	if err != nil {
		return "", err
	}
	object, err := parseAnswer(body)
	if err != nil {
		return "", answerError(endpointTopup, err)
	}
	var raw string
	if json.Unmarshal(object["topup_url"], &raw) != nil || raw == "" {
		return "", &providerError{endpoint: endpointTopup, status: http.StatusOK, reason: "the answer has no topup_url"}
	}
	u, reason := checkTopupURL(raw, c.topupHosts)
	if reason != "" {
		return "", &providerError{endpoint: endpointTopup, status: http.StatusOK, reason: reason}
	}
	return u.String(), nil
}

// checkTopupURL reads a top-up URL, or gives the reason why nobody may be sent there.
func checkTopupURL(raw string, hosts []string) (u *url.URL, reason string) {
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || !isSecureURL(u) {
		return nil, "the topup_url is not an https URL"
	}
	if _, err := canonicalHost(u.Hostname()); err != nil {
		return nil, "the topup_url's host is not one that browsers can open"
	}
	if len(hosts) > 0 && !slices.Contains(hosts, hostAndPort(u)) {
		return nil, "the topup_url's host is not one of topup_hosts"
	}
	return u, ""
}

// resolveTopupHosts reads the hosts of topup_hosts, in the form that hostAndPort gives.
func (s *settings) resolveTopupHosts(r *resolver, raw []string) {
	const setting = "topup_hosts"
	if len(raw) > 0 && r.err == nil && s.client.topupEndpoint == "" {
		r.fail(setting, "has no effect: there is no topup_endpoint")
	}
	for i, text := range r.texts(setting, raw) {
		host, err := parseHost(text)
		r.check(setting, raw[i], err)
		if r.err == nil {
			s.client.topupHosts = append(s.client.topupHosts, host)
		}
	}
}

// parseHost reads a host with an optional port, as it stands in an https URL.
func parseHost(text string) (string, error) {
	u, err := url.Parse("https://" + text)
	if err != nil || u.User != nil || u.Host != text || strings.HasSuffix(text, ":") {
		return "", fmt.Errorf("%q is not a host such as pay.example.com or pay.example.com:8443", text)
	}
	if _, err := canonicalHost(u.Hostname()); err != nil {
		return "", err
	}
	return hostAndPort(u), nil
}
