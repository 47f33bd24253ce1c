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

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
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

// list answers with the sessions of a user, the newest first. During a reload the old and
// the new handler of a site find the same sessions, and the new one's times count.
func (adminSessions) list(w http.ResponseWriter, r *http.Request) error {
	user, err := requestedUser(r)
	if err != nil {
		return err
	}
	var found []foundSession
	listed := map[string]bool{}
	asked := askSites(func(h *Handler) error {
		sessions, err := h.store.SessionsOf(r.Context(), user)
		for _, s := range sessions {
			if !listed[s.Name] && h.now().Before(h.sessions.endOf(s)) {
				found = append(found, foundSession{s, h})
			}
			listed[s.Name] = true
		}
		return err
	})
	switch {
	case len(asked.faults) > 0:
		return adminError(http.StatusServiceUnavailable, "%w", asked.faults[0])
	case asked.onServers == 0:
		return asked.noServerStore()
	}
	slices.SortFunc(found, func(a, b foundSession) int { return b.Created.Compare(a.Created) })
	response := adminapi.Sessions{Sessions: []adminapi.Session{}, CookieSites: asked.inCookies}
	for _, s := range found {
		response.Sessions = append(response.Sessions, adminapi.Session{
			Session: s.Name, User: user, Site: s.at.settings.origin, CreatedAt: s.Created.Unix(), LastSeenAt: s.LastSeen.Unix(), ExpiresAt: s.at.sessions.endOf(s.Summary).Unix(),
			Unconfirmed: s.Kind == session.RecordClaimed,
		})
	}
	return writeAdmin(w, response)
}

// foundSession is a session, and the handler that found it.
type foundSession struct {
	session.Summary
	at *Handler
}

// endUser ends the sessions of a user, as many as it can: if the store of one site does not
// answer, the sessions of the other sites end all the same. A session that an idle timeout
// has ended is ended for good, in case the timeout is made longer one day.
func (adminSessions) endUser(w http.ResponseWriter, r *http.Request) error {
	user, err := requestedUser(r)
	if err != nil {
		return err
	}
	count := 0
	asked := askSites(func(h *Handler) error {
		ended, err := h.endSessionsOf(r, user)
		count += ended
		return err
	})
	switch {
	case len(asked.faults) > 0:
		return adminError(http.StatusServiceUnavailable, "%w; sessions ended all the same: %d; try again for the rest", asked.faults[0], count)
	case asked.onServers == 0:
		return asked.noServerStore()
	}
	return writeAdmin(w, adminapi.Ended{Ended: count, CookieSites: asked.inCookies})
}

// endOne ends one session, at whichever site it is.
func (adminSessions) endOne(w http.ResponseWriter, r *http.Request, session string) error {
	switch {
	case !adminapi.IsName(session):
		return adminError(http.StatusNotFound, "there is no such session: %w", adminapi.ErrNoName)
	case r.URL.RawQuery != "":
		return adminError(http.StatusBadRequest, "name either a session or a user, and nothing else")
	}
	ended := false
	asked := askSites(func(h *Handler) (err error) {
		if !ended {
			ended, err = h.endNamed(r, session, "")
		}
		return err
	})
	switch {
	case ended:
		return writeAdmin(w, adminapi.Ended{Ended: 1})
	case len(asked.faults) > 0:
		return adminError(http.StatusServiceUnavailable, "%w; the session was not found elsewhere", asked.faults[0])
	case asked.onServers == 0:
		return asked.noServerStore()
	case len(asked.inCookies) > 0:
		return adminError(http.StatusNotFound, "there is no session %s on the server, and %w", session, adminapi.CookieSitesError(asked.inCookies))
	default:
		return adminError(http.StatusNotFound, "there is no session %s; it may have ended already", session)
	}
}

// endSessionsOf ends the sessions of a user in the handler's store, and says how many,
// also beside an error.
func (h *Handler) endSessionsOf(r *http.Request, user string) (int, error) {
	sessions, err := h.store.SessionsOf(r.Context(), user)
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
	ended, err := h.store.EndByName(r.Context(), session, time.Time{})
	if !ended {
		return false, err
	}
	h.state.sessions.Version.Add(1) // requests that are under way look again
	h.state.endAllStreams(session)
	h.audit.revoked(r, session, user)
	return true, nil
}

// endOf is when a session ends, as this handler counts.
func (ss *sessions) endOf(s session.Summary) time.Time {
	times := session.Session{Created: s.Created, LastSeen: s.LastSeen}
	return session.Earlier(s.Expires, times.End(ss.settings.lifetime, ss.settings.idleTimeout))
}

// askedSites is what the sites of this process answered to one admin request.
type askedSites struct {
	// onServers counts the handlers whose sessions are on a server.
	onServers int
	// inCookies are the origins of the sites whose sessions are in cookies, sorted.
	inCookies []string
	// faults are the errors of stores that did not answer.
	faults []error
}

// askSites calls ask for each handler of this process; of each site the newest comes first.
// An ask that returns session.ErrInCookies is no fault.
func askSites(ask func(*Handler) error) *askedSites {
	asked := &askedSites{}
	sharedStates.Range(func(_, state any) bool {
		handlers, release := state.(*shared).heldHandlers()
		defer release()
		for _, h := range handlers {
			err := ask(h)
			if errors.Is(err, session.ErrInCookies) {
				asked.inCookies = append(asked.inCookies, h.settings.origin)
				continue
			}
			asked.onServers++
			if err != nil {
				asked.faults = append(asked.faults, fmt.Errorf("the session store of %s does not answer: %w", h.settings.origin, err))
			}
		}
		return true
	})
	slices.Sort(asked.inCookies)
	asked.inCookies = slices.Compact(asked.inCookies)
	return asked
}

// noServerStore is the error of a request to which no site with a server-side store could
// answer.
func (a *askedSites) noServerStore() error {
	if len(a.inCookies) == 0 {
		return adminError(http.StatusNotFound, "no site of this Caddy has tollgate")
	}
	return adminError(http.StatusConflict, "%w", adminapi.CookieSitesError(a.inCookies))
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
