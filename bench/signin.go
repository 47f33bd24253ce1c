package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

// benchSession is a browser that has signed in.
type benchSession struct {
	userID string
	cookie string // the value of the Cookie header
}

// firstUserID is the first id. All ids have the same length, so that all requests and all
// responses have, too.
const firstUserID = 1_000_000

// maxSessions is the maximum number of browsers that the provider remembers.
const maxSessions = 10_000

func benchUsers(n int) []simulator.User {
	users := make([]simulator.User, n)
	for i := range users {
		id := int64(firstUserID + i)
		users[i] = simulator.User{
			ID: id, Username: userName(i), Email: userName(i) + "@example.com",
			BalanceCents: 750_00, UsedCents: 250_00, Status: simulator.StatusEnabled, CreatedTime: 1640995200,
		}
	}
	return users
}

func userName(i int) string { return "user" + strconv.Itoa(firstUserID+i) }

// signInParallel is the number of browsers that sign in at the same time.
const signInParallel = 16

// signInAll signs every user in, through the whole authorization code flow.
func (s *site) signInAll(n int) ([]benchSession, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: signInParallel}
	defer transport.CloseIdleConnections()
	sessions := make([]benchSession, n)
	errs := make([]error, signInParallel)
	var wg sync.WaitGroup
	for worker := range signInParallel {
		wg.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += signInParallel {
				sessions[i], errs[worker] = s.signIn(transport, i)
			}
		})
	}
	wg.Wait()
	return sessions, firstError(errs)
}

// signIn opens the site as a user does, and follows the redirects to the provider and back.
func (s *site) signIn(transport http.RoundTripper, i int) (benchSession, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return benchSession{}, err
	}
	browser := &http.Client{
		Transport: transport,
		Jar:       jar,
		Timeout:   time.Minute,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Path == simulator.AuthorizePath { // instead of the user's click on the provider's page
				query := r.URL.Query()
				query.Set("login_hint", userName(i))
				r.URL.RawQuery = query.Encode()
			}
			if len(via) > 10 {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+s.gated+"/", nil)
	if err != nil {
		return benchSession{}, err
	}
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	res, err := browser.Do(req)
	if err != nil {
		return benchSession{}, fmt.Errorf("signing in: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return benchSession{}, fmt.Errorf("signing in: %w", err)
	}
	session := benchSession{userID: strconv.Itoa(firstUserID + i), cookie: gatewayCookies(jar, res.Request.URL)}
	if want := expectedAnswer(session.userID, false); res.StatusCode != http.StatusOK || string(body) != want {
		return benchSession{}, fmt.Errorf("signing in ended at %s with status %d and %q, not %q", res.Request.URL, res.StatusCode, body, want)
	}
	if session.cookie == "" {
		return benchSession{}, errors.New("signing in left no session cookie")
	}
	return session, nil
}

// gatewayCookies returns the cookies that the browser sends to the gateway. The provider
// listens on the same host, and cookies do not depend on the port.
func gatewayCookies(jar http.CookieJar, u *url.URL) string {
	var pairs []string
	for _, c := range jar.Cookies(u) {
		if strings.HasPrefix(c.Name, cookieName) {
			pairs = append(pairs, c.Name+"="+c.Value)
		}
	}
	return strings.Join(pairs, "; ")
}
