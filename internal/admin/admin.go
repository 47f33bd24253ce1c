// Package admin is the server side of the admin API for sessions: it lists and ends the
// sessions of all sites of this process that keep them on a server.
//
// The types on the wire are in package adminapi. Begin with Server.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Site is one configuration of a site. After a reload the process may have two of a site
// for a while.
type Site interface {
	// Origin is the site's external origin.
	Origin() string
	// SessionsOf returns the live sessions of a user, or session.ErrInCookies.
	SessionsOf(ctx context.Context, user string) ([]Session, error)
	// EndSession ends the session with this name and reports whether there was one. It
	// returns session.ErrInCookies if the sessions are in cookies. user is for the audit
	// line; it is empty if it is not known.
	EndSession(r *http.Request, name, user string) (bool, error)
	// Names returns the names of all sessions in the site's store, which other sites may
	// share, or session.ErrInCookies.
	Names(ctx context.Context) ([]string, error)
	// Forget refuses a session that has ended through another site, and closes its streams.
	Forget(name string)
}

// Session is a session of a user.
type Session struct {
	session.Summary
	// Ends is when the session ends. One that has ended already is not listed, but still
	// counts as a session to end.
	Ends time.Time
	Live bool
}

// Server serves the admin API.
type Server struct {
	// Sites calls visit for each site of the process; of each site the newest
	// configuration comes first.
	Sites func(visit func(Site))
}

// Serve serves one request. It returns a caddy.APIError if the request fails.
func (s Server) Serve(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Path == adminapi.Path {
		switch r.Method {
		case http.MethodGet:
			return s.list(w, r)
		case http.MethodDelete:
			return s.end(w, r)
		default:
			return wrongMethod(w, "GET, DELETE")
		}
	}
	name, ok := strings.CutPrefix(r.URL.Path, adminapi.Path+"/")
	switch {
	case !ok || strings.Contains(name, "/"):
		return apiError(http.StatusNotFound, "not found; available: %s", adminapi.Path)
	case r.Method != http.MethodDelete:
		return wrongMethod(w, "DELETE")
	default:
		return s.endOne(w, r, name)
	}
}

// end ends the sessions of a user, or all.
func (s Server) end(w http.ResponseWriter, r *http.Request) error {
	if r.URL.RawQuery == adminapi.AllQuery {
		return s.endAll(w, r)
	}
	return s.endUser(w, r)
}

// list answers with the sessions of a user, the newest first. During a reload the old and
// the new handler of a site find the same sessions, and the new one's times count.
func (s Server) list(w http.ResponseWriter, r *http.Request) error {
	user, err := requestedUser(r)
	if err != nil {
		return err
	}
	var found []foundSession
	listed := map[string]bool{}
	asked := s.ask(func(site Site) error {
		sessions, err := site.SessionsOf(r.Context(), user)
		for _, one := range sessions {
			if !listed[one.Name] && one.Live {
				found = append(found, foundSession{one, site.Origin()})
			}
			listed[one.Name] = true
		}
		return err
	})
	switch {
	case len(asked.faults) > 0:
		return apiError(http.StatusServiceUnavailable, "%w", asked.faults[0])
	case asked.onServers == 0:
		return asked.noServerStore()
	}
	slices.SortFunc(found, func(a, b foundSession) int { return b.Created.Compare(a.Created) })
	response := adminapi.Sessions{Sessions: []adminapi.Session{}, CookieSites: asked.inCookies}
	for _, one := range found {
		response.Sessions = append(response.Sessions, adminapi.Session{
			Session: one.Name, User: user, Site: one.site,
			CreatedAt: one.Created.Unix(), LastSeenAt: one.LastSeen.Unix(), ExpiresAt: one.Ends.Unix(),
			Unconfirmed: one.Kind == session.RecordClaimed,
		})
	}
	return writeJSON(w, response)
}

// foundSession is a session, and the origin of its site.
type foundSession struct {
	Session
	site string
}

// endUser ends the sessions of a user, as many as it can: if the store of one site does not
// answer, the sessions of the other sites end all the same. A session that an idle timeout
// has ended is ended for good, in case the timeout is made longer one day.
func (s Server) endUser(w http.ResponseWriter, r *http.Request) error {
	user, err := requestedUser(r)
	if err != nil {
		return err
	}
	count := 0
	asked := s.ask(func(site Site) error {
		ended, err := endSessionsOf(r, site, user)
		count += ended
		return err
	})
	switch {
	case len(asked.faults) > 0:
		return apiError(http.StatusServiceUnavailable, "%w; sessions ended all the same: %d; try again for the rest", asked.faults[0], count)
	case asked.onServers == 0:
		return asked.noServerStore()
	}
	return writeJSON(w, adminapi.Ended{Ended: count, CookieSites: asked.inCookies})
}

// endAll ends every session of every store, as many as it can. A store does not know which
// of the sites that share it a session belongs to. So every site forgets what was ended.
func (s Server) endAll(w http.ResponseWriter, r *http.Request) error {
	var ended []string
	asked := s.ask(func(site Site) error {
		names, err := site.Names(r.Context())
		if err != nil {
			return err
		}
		done, err := endSessions(r, site, names)
		ended = append(ended, done...)
		return err
	})
	s.Sites(func(site Site) {
		for _, name := range ended {
			site.Forget(name)
		}
	})
	switch {
	case len(asked.faults) > 0:
		return apiError(http.StatusServiceUnavailable, "%w; sessions ended all the same: %d; try again for the rest", asked.faults[0], len(ended))
	case asked.onServers == 0 && len(asked.inCookies) > 0:
		return apiError(http.StatusConflict, "%w", adminapi.CookieSecretError(asked.inCookies))
	case asked.onServers == 0:
		return asked.noServerStore()
	}
	return writeJSON(w, adminapi.Ended{Ended: len(ended), CookieSites: asked.inCookies})
}

// endingAtOnce is how many sessions end at the same time. The store takes most of the time.
const endingAtOnce = 16

// endSessions ends sessions by their names, and returns those that it ended. It goes on after
// an error, and returns the first one.
func endSessions(r *http.Request, site Site, names []string) (ended []string, err error) {
	var (
		mu    sync.Mutex // guards ended and err
		group sync.WaitGroup
		next  = make(chan string)
	)
	for range endingAtOnce {
		group.Go(func() { // ends when next is closed
			for name := range next {
				ok, fault := site.EndSession(r, name, "")
				mu.Lock()
				if ok {
					ended = append(ended, name)
				}
				if err == nil {
					err = fault
				}
				mu.Unlock()
			}
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	group.Wait()
	return ended, err
}

// endOne ends one session, at whichever site it is.
func (s Server) endOne(w http.ResponseWriter, r *http.Request, name string) error {
	switch {
	case !adminapi.IsName(name):
		return apiError(http.StatusNotFound, "there is no such session: %w", adminapi.ErrNoName)
	case r.URL.RawQuery != "":
		return apiError(http.StatusBadRequest, "name either a session or a user, and nothing else")
	}
	ended := false
	asked := s.ask(func(site Site) (err error) {
		if !ended {
			ended, err = site.EndSession(r, name, "")
		}
		return err
	})
	switch {
	case ended:
		return writeJSON(w, adminapi.Ended{Ended: 1})
	case len(asked.faults) > 0:
		return apiError(http.StatusServiceUnavailable, "%w; the session was not found elsewhere", asked.faults[0])
	case asked.onServers == 0:
		return asked.noServerStore()
	case len(asked.inCookies) > 0:
		return apiError(http.StatusNotFound, "there is no session %s on the server, and %w", name, adminapi.CookieSitesError(asked.inCookies))
	default:
		return apiError(http.StatusNotFound, "there is no session %s; it may have ended already", name)
	}
}

// endSessionsOf ends the sessions of a user at one site. It returns how many ended, also
// with an error.
func endSessionsOf(r *http.Request, site Site, user string) (int, error) {
	sessions, err := site.SessionsOf(r.Context(), user)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, one := range sessions {
		ended, err := site.EndSession(r, one.Name, user)
		if err != nil {
			return count, err
		}
		if ended {
			count++
		}
	}
	return count, nil
}

// askedSites is the result of one admin request at all sites.
type askedSites struct {
	// onServers counts the sites whose sessions are on a server.
	onServers int
	// inCookies are the origins of the sites whose sessions are in cookies, sorted.
	inCookies []string
	// faults are the errors of stores that did not answer.
	faults []error
}

// ask calls do for each site. A do that returns session.ErrInCookies is no fault.
func (s Server) ask(do func(Site) error) *askedSites {
	asked := &askedSites{}
	s.Sites(func(site Site) {
		err := do(site)
		if errors.Is(err, session.ErrInCookies) {
			asked.inCookies = append(asked.inCookies, site.Origin())
			return
		}
		asked.onServers++
		if err != nil {
			asked.faults = append(asked.faults, fmt.Errorf("the session store of %s does not answer: %w", site.Origin(), err))
		}
	})
	slices.Sort(asked.inCookies)
	asked.inCookies = slices.Compact(asked.inCookies)
	return asked
}

// noServerStore is the error of a request to which no site with a server-side store could
// answer.
func (a *askedSites) noServerStore() error {
	if len(a.inCookies) == 0 {
		return apiError(http.StatusNotFound, "no site of this Caddy has tollgate")
	}
	return apiError(http.StatusConflict, "%w", adminapi.CookieSitesError(a.inCookies))
}

// requestedUser reads the parameter user. A request with any other parameter is refused:
// it would end more sessions than its sender wants.
func requestedUser(r *http.Request) (string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	users := query["user"]
	if err != nil || len(query) != 1 || len(users) != 1 || users[0] == "" {
		return "", apiError(http.StatusBadRequest,
			"add the user's id, and nothing else: %s?user=<id>; the store has no readable list of users, so sessions are looked up by user (to end all: DELETE %s?%s)", adminapi.Path, adminapi.Path, adminapi.AllQuery)
	}
	return users[0], nil
}

func wrongMethod(w http.ResponseWriter, allowed string) error {
	w.Header().Set("Allow", allowed)
	return apiError(http.StatusMethodNotAllowed, "method not allowed; allowed: %s", allowed)
}

func apiError(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

func writeJSON(w http.ResponseWriter, response any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(response)
}
