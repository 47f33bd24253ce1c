package renewal_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/stores/cookie"
)

// unauthorizedSite is what a test of Unauthorized needs. Refreshes number the access tokens.
type unauthorizedSite struct {
	*renewal.Unauthorized
	sessions  *session.Registry
	session   *session.Session // its first generation
	refreshes int
	failure   error  // of a refresh
	during    func() // is called in a refresh
	waiting   func() // is called when a request begins to wait for a refresh
}

func newUnauthorizedSite(t *testing.T) *unauthorizedSite {
	t.Helper()
	sessions := session.NewRegistry(time.Now, func(session.ID, time.Time) {})
	refresher := renewal.New(sessions, time.Now)
	site := &unauthorizedSite{Unauthorized: renewal.NewUnauthorized(refresher), sessions: sessions, during: func() {}, waiting: func() {}}
	t.Cleanup(func() {
		site.Close()
		refresher.Close()
		sessions.Close()
	})
	now := time.Now()
	site.session = session.NewSession(now, oauth.Tokens{
		Access: "access_0", Refresh: "refresh_0", Issued: now, Expires: now.Add(time.Hour),
	}, oauth.UserInfo{})
	return site
}

func (u *unauthorizedSite) how(*session.Session) renewal.How {
	return renewal.How{
		Store: &cookie.Sessions{}, Lease: time.Second, Timeout: time.Minute, Waiting: u.waiting,
		Spend: func(_ context.Context, old oauth.Tokens) (oauth.Tokens, error) {
			u.during()
			if u.failure != nil {
				return old, u.failure
			}
			u.refreshes++
			old.Access = fmt.Sprint("access_", u.refreshes)
			return old, nil
		},
	}
}

// ask asks a provider that accepts one access token. It returns the tokens that were sent.
func (u *unauthorizedSite) ask(t *testing.T, accepted string) (sent []string, err error) {
	err = u.Ask(t.Context(), u.session, u.how, func(access string) error {
		sent = append(sent, access)
		if access == accepted {
			return nil
		}
		return &oauth.Error{Kind: oauth.FailureUnauthorized, Status: 401}
	})
	return sent, err
}

// refuse reports a 401 of the upstream for an access token.
func (u *unauthorizedSite) refuse(t *testing.T, token string) error {
	return u.Refused(t.Context(), u.session, u.how, func(s *session.Session) bool { return s.Tokens.Access == token })
}

func (u *unauthorizedSite) wantRefreshes(t *testing.T, when string, want int) {
	t.Helper()
	if u.refreshes != want {
		t.Errorf("%s: got %d refreshes, want %d", when, u.refreshes, want)
	}
}

func TestAskRefreshesOnceAfterA401(t *testing.T) {
	u := newUnauthorizedSite(t)
	if sent, err := u.ask(t, "access_1"); err != nil || fmt.Sprint(sent) != "[access_0 access_1]" {
		t.Errorf("got %v, %v, want the old token, then the new one", sent, err)
	}
	if sent, err := u.ask(t, "access_1"); err != nil || fmt.Sprint(sent) != "[access_1]" {
		t.Errorf("got %v, %v, want the newest token only", sent, err)
	}
	if sent, err := u.ask(t, "another"); oauth.FailureOf(err) != oauth.FailureUnauthorized || fmt.Sprint(sent) != "[access_1 access_2]" {
		t.Errorf("got %v, %v, want one refresh and the second 401", sent, err)
	}
	if sent, err := u.ask(t, "another"); oauth.FailureOf(err) != oauth.FailureUnauthorized || fmt.Sprint(sent) != "[access_2]" {
		t.Errorf("got %v, %v, want no refresh after one that did not help", sent, err)
	}
	u.wantRefreshes(t, "at the end", 2)
}

func TestAskDoesNotRefreshWithoutNeed(t *testing.T) {
	u := newUnauthorizedSite(t)
	down := &oauth.Error{Status: 503}
	if err := u.Ask(t.Context(), u.session, u.how, func(string) error { return down }); !errors.Is(err, down) {
		t.Errorf("503: got %v", err)
	}
	u.session.Tokens.Refresh = ""
	if _, err := u.ask(t, "access_1"); oauth.FailureOf(err) != oauth.FailureUnauthorized {
		t.Errorf("without a refresh token: got %v, want the 401", err)
	}
	u.sessions.End(u.session, time.Now())
	if sent, err := u.ask(t, "access_0"); !errors.Is(err, session.ErrEnded) || sent != nil {
		t.Errorf("ended: got %v, %v, want no request", sent, err)
	}
	u.wantRefreshes(t, "at the end", 0)
}

func TestRefusedRefreshesUntilATokenIsDoubted(t *testing.T) {
	u := newUnauthorizedSite(t)
	if err := u.refuse(t, "access_0"); err != nil {
		t.Fatal(err)
	}
	u.wantRefreshes(t, "the first 401", 1)
	if err := u.refuse(t, "access_0"); err != nil {
		t.Errorf("a late 401 for the old token: %v", err)
	}
	if err := u.refuse(t, "access_1"); !errors.Is(err, renewal.ErrFutile) {
		t.Errorf("a 401 for the new token: got %v, want ErrFutile", err)
	}
	u.wantRefreshes(t, "before the upstream accepts the new token", 1)
	u.Accepted(u.session)
	if err := u.refuse(t, "access_1"); err != nil {
		t.Errorf("after the upstream has accepted the new token: %v", err)
	}
	u.wantRefreshes(t, "after that", 2)
}

func TestRefusedJoinsTheRefreshThatIsUnderWay(t *testing.T) {
	u := newUnauthorizedSite(t)
	waits, other := make(chan struct{}, 2), make(chan error, 1)
	u.waiting = func() { waits <- struct{}{} }
	u.during = func() {
		<-waits
		go func() { other <- u.refuse(t, "access_0") }()
		select {
		case <-waits:
		case err := <-other:
			t.Errorf("another 401 during the refresh: got %v at once, want it to wait", err)
			other <- err
		}
	}
	if err := u.refuse(t, "access_0"); err != nil {
		t.Error(err)
	}
	<-other
	u.wantRefreshes(t, "two 401s at a time", 1)
}

// TestFailedRefreshRaisesNoDoubt: the upstream has not seen another token.
func TestFailedRefreshRaisesNoDoubt(t *testing.T) {
	u := newUnauthorizedSite(t)
	u.failure = errors.New("the store does not answer")
	if err := u.refuse(t, "access_0"); !errors.Is(err, u.failure) {
		t.Fatalf("got %v, want %v", err, u.failure)
	}
	if err := u.refuse(t, "access_0"); !errors.Is(err, u.failure) {
		t.Errorf("the next 401: got %v, want the error of the refresh", err)
	}
	u.failure = nil
	other := u.session.Tokens
	other.Access = "access_other"
	u.sessions.Remember(u.session.Renewed(other)) // by a refresh for another reason
	if err := u.refuse(t, "access_other"); err != nil {
		t.Errorf("a 401 for tokens that were refreshed for another reason: %v", err)
	}
	u.wantRefreshes(t, "after that", 1)
}

func TestRefusedDoesNotRefreshWithoutNeed(t *testing.T) {
	u := newUnauthorizedSite(t)
	u.session.Tokens.Refresh = ""
	if err := u.refuse(t, "access_0"); !errors.Is(err, renewal.ErrFutile) {
		t.Errorf("without a refresh token: got %v, want ErrFutile", err)
	}
	u.sessions.End(u.session, time.Now())
	if err := u.refuse(t, "access_0"); !errors.Is(err, session.ErrEnded) {
		t.Errorf("ended: got %v, want ErrEnded", err)
	}
}
