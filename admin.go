package tollgate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func init() {
	caddy.RegisterModule(adminSessions{})
}

// adminSessions lists and ends sessions through Caddy's admin endpoint, which keeps
// web pages of other origins out and is open to everybody else who reaches it.
//
//	GET    /tollgate/sessions?user=<id>
//	DELETE /tollgate/sessions?user=<id>
//	DELETE /tollgate/sessions/<session>
//
// It speaks for all sites of this process that keep their sessions on the server.
type adminSessions struct{}

// CaddyModule returns the Caddy module information.
func (adminSessions) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.tollgate",
		New: func() caddy.Module { return new(adminSessions) },
	}
}

// Routes implements caddy.AdminRouter.
func (a adminSessions) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/tollgate/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

func (a adminSessions) serve(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Path == adminapi.Path {
		switch r.Method {
		case http.MethodGet:
			return a.list(w, r)
		case http.MethodDelete:
			return a.endUser(w, r)
		default:
			return wrongMethod(w, "GET, DELETE")
		}
	}
	session, ok := strings.CutPrefix(r.URL.Path, adminapi.Path+"/")
	switch {
	case !ok || strings.Contains(session, "/"):
		return adminError(http.StatusNotFound, "there is nothing here but %s", adminapi.Path)
	case r.Method != http.MethodDelete:
		return wrongMethod(w, "DELETE")
	default:
		return a.endOne(w, r, session)
	}
}

// list answers with the sessions of a user, the newest first. During a reload the old
// and the new handler of a site find the same ones, and the new one's word counts.
func (adminSessions) list(w http.ResponseWriter, r *http.Request) error {
	user, sites, err := userAndSites(r)
	if err != nil {
		return err
	}
	defer sites.release()

	var found []foundSession
	listed := map[string]bool{}
	for _, h := range sites.stores {
		sessions, err := h.tickets.SessionsOf(r.Context(), user)
		if err != nil {
			return adminError(http.StatusServiceUnavailable, "%w", storeFault(h, err))
		}
		for _, s := range sessions {
			if !listed[s.Name] && h.now().Before(h.endOf(s)) {
				found = append(found, foundSession{s, h})
			}
			listed[s.Name] = true
		}
	}
	slices.SortFunc(found, func(a, b foundSession) int { return b.Created.Compare(a.Created) })
	answer := adminapi.Sessions{Sessions: []adminapi.Session{}, CookieSites: sites.cookies}
	for _, s := range found {
		answer.Sessions = append(answer.Sessions, adminapi.Session{
			Session: s.Name, User: user, Site: s.at.settings.origin, CreatedAt: s.Created.Unix(), LastSeenAt: s.LastSeen.Unix(), ExpiresAt: s.at.endOf(s.Summary).Unix(),
		})
	}
	return writeAdmin(w, answer)
}

// foundSession is a session, and the handler that found it.
type foundSession struct {
	records.Summary
	at *Handler
}

// endUser ends the sessions of a user, as many as it can: a site whose store does not
// answer does not spare those of the others. A session that an idle timeout has ended
// is ended for good, should the timeout be made longer one day.
func (adminSessions) endUser(w http.ResponseWriter, r *http.Request) error {
	user, sites, err := userAndSites(r)
	if err != nil {
		return err
	}
	defer sites.release()

	answer := adminapi.Ended{CookieSites: sites.cookies}
	var faults []error
	for _, h := range sites.stores {
		ended, err := h.endSessionsOf(r, user)
		answer.Ended += ended
		if err != nil {
			faults = append(faults, storeFault(h, err))
		}
	}
	if len(faults) > 0 {
		return adminError(http.StatusServiceUnavailable, "%w; sessions ended all the same: %d; try again for the rest", faults[0], answer.Ended)
	}
	return writeAdmin(w, answer)
}

// endOne ends one session, whichever site it belongs to.
func (adminSessions) endOne(w http.ResponseWriter, r *http.Request, session string) error {
	switch {
	case !adminapi.IsName(session):
		return adminError(http.StatusNotFound, "there is no such session: %w", adminapi.ErrNoName)
	case r.URL.RawQuery != "":
		return adminError(http.StatusBadRequest, "name either a session or a user, and nothing else")
	}
	sites, err := reachSites()
	if err != nil {
		return err
	}
	defer sites.release()

	var faults []error
	for _, h := range sites.stores {
		ended, err := h.endNamed(r, session, "")
		switch {
		case ended:
			return writeAdmin(w, adminapi.Ended{Ended: 1})
		case err != nil:
			faults = append(faults, storeFault(h, err))
		}
	}
	switch {
	case len(faults) > 0:
		return adminError(http.StatusServiceUnavailable, "%w; the session was not found elsewhere", faults[0])
	case len(sites.cookies) > 0:
		return adminError(http.StatusNotFound, "there is no session %s on the server, and %w", session, adminapi.CookieSitesError(sites.cookies))
	default:
		return adminError(http.StatusNotFound, "there is no session %s; it may have ended already", session)
	}
}

// endSessionsOf ends the sessions of a user in the handler's store, and says how many,
// also beside an error.
func (h *Handler) endSessionsOf(r *http.Request, user string) (int, error) {
	sessions, err := h.tickets.SessionsOf(r.Context(), user)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, s := range sessions {
		ended, err := h.endNamed(r, s.Name, user)
		if err != nil {
			return count, err
		}
		if ended {
			count++
		}
	}
	return count, nil
}

// endNamed ends a session, and reports whether there was one. Once its record is gone it
// has ended; what may be left of it in the index is tidied away by the next list.
func (h *Handler) endNamed(r *http.Request, session, user string) (bool, error) {
	ended, err := h.tickets.EndByName(r.Context(), session, time.Time{})
	if !ended {
		return false, err
	}
	h.state.sessions.Version.Add(1) // requests that are under way look again
	h.state.endAllStreams(session)
	h.auditRevoked(r, session, user)
	return true, nil
}

// endOf is when a session ends, as this handler counts.
func (h *Handler) endOf(s records.Summary) time.Time {
	times := session.Session{Created: s.Created, LastSeen: s.LastSeen}
	return session.Earlier(s.Expires, times.End(h.settings.lifetime, h.settings.idleTimeout))
}

// reachedSites are the sites of this process, for one admin request.
type reachedSites struct {
	// stores are the handlers whose sessions are on the server; of each site the newest
	// comes first.
	stores []*Handler
	// cookies are the origins of the sites whose sessions are in cookies.
	cookies []string
	release func()
}

// reachSites finds the sites of this process. It fails where there is none whose
// sessions are on the server.
func reachSites() (*reachedSites, error) {
	sites := &reachedSites{}
	var releases []func()
	sharedStates.Range(func(_, state any) bool {
		handlers, release := state.(*shared).heldHandlers()
		releases = append(releases, release)
		for _, h := range handlers {
			if h.tickets == nil {
				sites.cookies = append(sites.cookies, h.settings.origin)
			} else {
				sites.stores = append(sites.stores, h)
			}
		}
		return true
	})
	sites.release = func() {
		for _, release := range releases {
			release()
		}
	}
	slices.Sort(sites.cookies)
	sites.cookies = slices.Compact(sites.cookies)
	switch {
	case len(sites.stores) > 0:
		return sites, nil
	case len(sites.cookies) > 0:
		sites.release()
		return nil, adminError(http.StatusConflict, "%w", adminapi.CookieSitesError(sites.cookies))
	default:
		sites.release()
		return nil, adminError(http.StatusNotFound, "no site of this Caddy has tollgate")
	}
}

func storeFault(h *Handler, err error) error {
	return fmt.Errorf("the session store of %s does not answer: %w", h.settings.origin, err)
}

// userAndSites gives the user that a request names, and the sites to ask.
func userAndSites(r *http.Request) (string, *reachedSites, error) {
	user, err := requestedUser(r)
	if err != nil {
		return "", nil, err
	}
	sites, err := reachSites()
	return user, sites, err
}

// requestedUser reads the one parameter there is. A request that names another thing
// beside it would get more than it asked for, and is refused.
func requestedUser(r *http.Request) (string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	users := query["user"]
	if err != nil || len(query) != 1 || len(users) != 1 || users[0] == "" {
		return "", adminError(http.StatusBadRequest,
			"add the user's id, and nothing else: %s?user=<id>; the store holds no list that can be read, so sessions are looked up by user", adminapi.Path)
	}
	return users[0], nil
}

func wrongMethod(w http.ResponseWriter, allowed string) error {
	w.Header().Set("Allow", allowed)
	return adminError(http.StatusMethodNotAllowed, "the method is none of %s", allowed)
}

func adminError(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

func writeAdmin(w http.ResponseWriter, answer any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(answer)
}

// Interface guards.
var (
	_ caddy.Module      = adminSessions{}
	_ caddy.AdminRouter = adminSessions{}
)
