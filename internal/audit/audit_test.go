package audit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// newLog returns a log, its lines, and its clock.
func newLog() (*audit.Log, *observer.ObservedLogs, *time.Time) {
	core, lines := observer.New(zapcore.InfoLevel)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return &audit.Log{Logger: zap.New(core), Metrics: metrics.New(), Now: func() time.Time { return now }}, lines, &now
}

func failure(code string) error { return cause.Else(code, errors.New("it failed")) }

func newSession() *session.Session {
	return session.NewSession(time.Time{}, oauth.Tokens{}, oauth.UserInfo{})
}

// Clients, or all sessions during an outage, can cause each of these lines.
var limited = map[string]struct {
	counts string
	write  func(l *audit.Log, r *http.Request, err error)
}{
	"cannot do it": {"requests", func(l *audit.Log, _ *http.Request, err error) { l.StoreFailed("cannot do it", newSession(), err) }},
	"a line of others": {"requests", func(l *audit.Log, _ *http.Request, err error) {
		l.Rarely(zap.ErrorLevel, "a line of others", cause.Of(err))
	}},
	"refresh failed": {"refreshes", func(l *audit.Log, _ *http.Request, err error) { l.Refreshed(newSession(), err) }},
	"refresh failed before the refresh token was sent": {"refreshes", func(l *audit.Log, _ *http.Request, err error) { l.NotBegun(newSession(), err) }},
	"refreshed tokens cannot be saved; the user must sign in again after a restart of this process": {"requests", func(l *audit.Log, _ *http.Request, err error) {
		l.TooLarge(newSession(), err)
	}},
	"the provider ended a session, and the session store could not be told; this process refuses the session": {"requests", func(l *audit.Log, _ *http.Request, err error) {
		l.NotEnded(newSession(), err)
	}},
	"cannot read the user information":                        {"reads", func(l *audit.Log, _ *http.Request, err error) { l.ReadFailed(context.Background(), newSession(), err) }},
	"cannot read sessions: the session store does not answer": {"requests", func(l *audit.Log, r *http.Request, err error) { l.Fault(context.Background(), r, err) }},
}

func TestLinesOfFailuresAreWrittenOnceAMinutePerCause(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for message, line := range limited {
		l, lines, now := newLog()
		counts := func() (all []int64) {
			for _, entry := range lines.FilterMessage(message).All() {
				n, _ := entry.ContextMap()[line.counts].(int64)
				all = append(all, n)
			}
			return all
		}
		for range 4 {
			line.write(l, r, failure(cause.Timeout))
		}
		if got := counts(); len(got) != 1 || got[0] != 1 {
			t.Errorf("%s: got lines with the counts %v within a minute, want 1", message, got)
		}
		line.write(l, r, failure(cause.StoreUnavailable))
		if got := counts(); len(got) != 2 {
			t.Errorf("%s: got %d lines after another cause, want 2", message, len(got))
		}
		*now = now.Add(time.Minute)
		line.write(l, r, failure(cause.Timeout))
		if got := counts(); len(got) != 3 || got[2] != 4 {
			t.Errorf("%s: got lines with the counts %v after a minute, want a third one with 4", message, got)
		}
	}
}

func TestEachFailedRefreshIsAnAuditEvent(t *testing.T) {
	l, lines, _ := newLog()
	sessions := map[any]bool{}
	for range 3 {
		s := newSession()
		sessions[s.ID.Hash()] = true
		l.Refreshed(s, failure(cause.Timeout))
	}
	for _, event := range lines.FilterMessage(audit.RefreshFailed).All() {
		if event.LoggerName == "audit" && event.ContextMap()["reason"] == cause.Timeout {
			delete(sessions, event.ContextMap()["session"])
		}
	}
	if len(sessions) != 0 {
		t.Errorf("got no event of %d sessions", len(sessions))
	}
	row, _ := cause.Find(cause.Timeout)
	first := lines.FilterMessage("refresh failed").All()
	if len(first) != 1 || first[0].ContextMap()["cause"] != cause.Timeout || first[0].ContextMap()["hint"] != row.Hint {
		t.Errorf("got lines %v, want one with cause and hint", first)
	}
}

// The page of each failure shows a request id. An operator must find it in the log.
func TestEachFailureThatAPageShowsHasALine(t *testing.T) {
	l, lines, _ := newLog()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for range 3 {
		l.SignInFailed(r, cause.Timeout, 503, failure(cause.Timeout))
		l.TopupFailed(r, newSession(), failure(cause.Timeout))
	}
	for _, message := range []string{"sign-in failed", "the provider gave no usable top-up URL"} {
		if n := lines.FilterMessage(message).Len(); n != 3 {
			t.Errorf("%s: got %d lines of three failures, want 3", message, n)
		}
	}
	if events := lines.FilterMessage(audit.LoginFailed).FilterFieldKey("error").All(); len(events) != 3 {
		t.Errorf("got audit events %v, want three with the error", events)
	}
}

// Anybody can write each code into the callback's URL.
func TestACodeInTheURLDoesNotFillTheLog(t *testing.T) {
	l, lines, _ := newLog()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for range 3 {
		l.SignInFailed(r, cause.InvalidClient, 400, nil)
	}
	l.SignInFailed(r, cause.InvalidClient, 502, failure(cause.InvalidClient))
	if n := lines.FilterMessage("sign-in failed").Len(); n != 2 {
		t.Errorf("got %d lines, want one of the URLs, and one of the provider", n)
	}
}

func TestAStoreThatIsDownDoesNotFillTheLogWithSignIns(t *testing.T) {
	l, lines, _ := newLog()
	for range 3 {
		l.SignInFailed(httptest.NewRequest(http.MethodGet, "/", nil), cause.StoreUnavailable, 503, failure(cause.StoreUnavailable))
	}
	if n := lines.FilterMessage("sign-in failed").Len(); n != 1 {
		t.Errorf("got %d lines, want 1", n)
	}
}

func TestBusyReadsDoNotHideTimeouts(t *testing.T) {
	l, lines, _ := newLog()
	l.ReadFailed(context.Background(), newSession(), account.ErrReadsBusy)
	l.ReadFailed(context.Background(), newSession(), failure(cause.Timeout))
	if n := lines.FilterMessage("cannot read the user information").Len(); n != 2 {
		t.Errorf("got %d lines, want 2", n)
	}
}
