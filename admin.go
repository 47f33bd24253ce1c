package tollgate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
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

// adminSessionsPath is where the sessions stand on the admin endpoint.
const adminSessionsPath = "/tollgate/sessions"

// Routes implements caddy.AdminRouter.
func (a adminSessions) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/tollgate/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

func (a adminSessions) serve(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Path == adminSessionsPath {
		switch r.Method {
		case http.MethodGet:
			return a.list(w, r)
		case http.MethodDelete:
			return a.endUser(w, r)
		default:
			return wrongMethod(w, "GET, DELETE")
		}
	}
	session, ok := strings.CutPrefix(r.URL.Path, adminSessionsPath+"/")
	switch {
	case !ok || strings.Contains(session, "/"):
		return adminError(http.StatusNotFound, "there is nothing here but %s", adminSessionsPath)
	case r.Method != http.MethodDelete:
		return wrongMethod(w, "DELETE")
	default:
		return a.endOne(w, r, session)
	}
}

// sessionsAnswer is what the sessions of a user are answered with.
type sessionsAnswer struct {
	Sessions []listedSession `json:"sessions"`
	// CookieSites are the sites whose sessions nobody can list or end.
	CookieSites []string `json:"cookie_sites,omitempty"`
}

// listedSession is one session in the answer. Times are Unix seconds.
type listedSession struct {
	// Session is its name in logs and audit lines, which opens nothing.
	Session   string `json:"session"`
	User      string `json:"user"`
	Site      string `json:"site"`
	CreatedAt int64  `json:"created_at"`
	// LastSeenAt moves with an idle timeout only: without one nobody writes it down.
	LastSeenAt int64 `json:"last_seen_at"`
	ExpiresAt  int64 `json:"expires_at"`
}

// endedAnswer says how many sessions were ended.
type endedAnswer struct {
	Ended       int      `json:"ended"`
	CookieSites []string `json:"cookie_sites,omitempty"`
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
		sessions, err := h.tickets.sessionsOf(r.Context(), user)
		if err != nil {
			return adminError(http.StatusServiceUnavailable, "%w", storeFault(h, err))
		}
		for _, s := range sessions {
			if !listed[s.name] && h.now().Before(h.endOf(s)) {
				found = append(found, foundSession{s, h})
			}
			listed[s.name] = true
		}
	}
	slices.SortFunc(found, func(a, b foundSession) int { return b.created.Compare(a.created) })
	answer := sessionsAnswer{Sessions: []listedSession{}, CookieSites: sites.cookies}
	for _, s := range found {
		answer.Sessions = append(answer.Sessions, listedSession{
			s.name, user, s.at.origin, s.created.Unix(), s.lastSeen.Unix(), s.at.endOf(s.sessionSummary).Unix(),
		})
	}
	return writeAdmin(w, answer)
}

// foundSession is a session, and the handler that found it.
type foundSession struct {
	sessionSummary
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

	answer := endedAnswer{CookieSites: sites.cookies}
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
	case !isSessionName(session):
		return adminError(http.StatusNotFound, "there is no such session: %w", errNoSessionName)
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
			return writeAdmin(w, endedAnswer{Ended: 1})
		case err != nil:
			faults = append(faults, storeFault(h, err))
		}
	}
	switch {
	case len(faults) > 0:
		return adminError(http.StatusServiceUnavailable, "%w; the session was not found elsewhere", faults[0])
	case len(sites.cookies) > 0:
		return adminError(http.StatusNotFound, "there is no session %s on the server, and %w", session, cookieSitesError(sites.cookies))
	default:
		return adminError(http.StatusNotFound, "there is no session %s; it may have ended already", session)
	}
}

// endSessionsOf ends the sessions of a user in the handler's store, and says how many,
// also beside an error.
func (h *Handler) endSessionsOf(r *http.Request, user string) (int, error) {
	sessions, err := h.tickets.sessionsOf(r.Context(), user)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, s := range sessions {
		ended, err := h.endNamed(r, s.name, user)
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
	ended, err := h.tickets.endByName(r.Context(), session, time.Time{})
	if !ended {
		return false, err
	}
	h.state.sessions.version.Add(1) // requests that are under way look again
	h.state.endAllStreams(session)
	h.auditRevoked(r, session, user)
	return true, nil
}

// endOf is when a session ends, as this handler counts.
func (h *Handler) endOf(s sessionSummary) time.Time {
	times := session{created: s.created, lastSeen: s.lastSeen}
	return earlier(s.expires, times.end(h.lifetime, h.idleTimeout))
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
				sites.cookies = append(sites.cookies, h.origin)
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
		return nil, adminError(http.StatusConflict, "%w", cookieSitesError(sites.cookies))
	default:
		sites.release()
		return nil, adminError(http.StatusNotFound, "no site of this Caddy has tollgate")
	}
}

// cookieSitesError says why the sessions of some sites are out of reach, and what to do
// about it.
func cookieSitesError(origins []string) error {
	return fmt.Errorf("sessions in cookies cannot be listed or ended: configure `session { store storage }` or `session { store redis { … } }` for %s",
		strings.Join(origins, ", "))
}

func storeFault(h *Handler, err error) error {
	return fmt.Errorf("the session store of %s does not answer: %w", h.origin, err)
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
			"add the user's id, and nothing else: %s?user=<id>; the store holds no list that can be read, so sessions are looked up by user", adminSessionsPath)
	}
	return users[0], nil
}

var errNoSessionName = errors.New("a session is named by 32 hex digits: the `session` of the list and of the audit lines")

// isSessionName reports whether a text could be the name of a session, as
// sessionID.hash makes it.
func isSessionName(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
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
