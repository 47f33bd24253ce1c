// Package audit writes the audit events, and the log lines of failures: each with its cause, a
// hint for the operator and the id of the request. No line has a token, a code, a state, a
// cookie or a secret in it.
//
// It decides nothing. Begin with Log.Event and Log.SignInFailed.
package audit

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/rare"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// The audit events.
const (
	Login          = "login"
	LoginFailed    = "login_failed"
	Refresh        = "refresh"
	RefreshFailed  = "refresh_failed"
	Logout         = "logout"
	SessionRevoked = "session_revoked"
	Denied         = "denied"
)

// Log writes the audit events and the log lines of one site.
type Log struct {
	// Logger gets the lines. The audit events go to its child named audit.
	Logger *zap.Logger
	// Metrics counts sign-ins that failed, and refreshes.
	Metrics *metrics.Set
	// Now is the clock.
	Now func() time.Time

	// storeFaults, unknownRefreshes and busyReads limit lines that every request could cause
	// while the store or the provider is down.
	storeFaults, unknownRefreshes, busyReads rare.Line
	// storeFailures limits the lines of StoreFailed, by message.
	storeFailures rare.Lines
	// failedReads limits the lines of ReadFailed, by cause.
	failedReads rare.Lines
	// refusals limits the ERROR lines about codes in the callback's URL, by cause. Anybody
	// with a pending sign-in can write such a URL.
	refusals rare.Lines
}

// about is what an audit event is about. Each event has all these fields; a text that is not
// known is empty.
type about struct {
	user, session, reason string
}

func aboutSession(s *session.Session, reason string) about {
	if s == nil {
		return about{reason: reason}
	}
	return about{user: s.User.ID(), session: s.ID.Hash(), reason: reason}
}

// event writes one audit event. r is nil for an event outside of any request.
func (l *Log) event(name string, r *http.Request, a about, more ...zap.Field) {
	fields := append([]zap.Field{
		zap.String("user_id", a.user), zap.String("session", a.session), zap.String("reason", a.reason),
	}, RequestFields(r)...)
	l.Logger.Named("audit").Info(name, append(fields, more...)...)
}

// Event writes one audit event. s is nil without a session, and reason is empty without one.
func (l *Log) Event(name string, r *http.Request, s *session.Session, reason string, more ...zap.Field) {
	l.event(name, r, aboutSession(s, reason), more...)
}

// Revoked writes that an operator ended a session. user is empty if the operator named only the
// session.
func (l *Log) Revoked(r *http.Request, session, user string) {
	l.event(SessionRevoked, r, about{user: user, session: session, reason: "admin"})
}

// RequestFields returns the client address and the id of a request. Both are empty if r is nil.
func RequestFields(r *http.Request) []zap.Field {
	return []zap.Field{zap.String("client_ip", clientIP(r)), zap.String("request_id", RequestID(r))}
}

// clientIP returns the client address that Caddy has found, or else the address of the
// connection: the admin endpoint has only the latter.
func clientIP(r *http.Request) string {
	if r == nil {
		return ""
	}
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		return ip
	}
	ip, _, _ := net.SplitHostPort(r.RemoteAddr) // fails for a Unix socket, which has none
	return ip
}

// RequestID returns the id of a request: the placeholder {http.request.uuid}.
func RequestID(r *http.Request) string {
	if r == nil {
		return ""
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	id, _ := repl.GetString("http.request.uuid")
	return id
}

// failure writes the line of a failure, with the level and the hint of its cause. err may be nil.
func (l *Log) failure(message, code string, err error, more ...zap.Field) {
	row, ok := cause.Find(code)
	if !ok {
		row, _ = cause.Find(cause.ServerError)
	}
	fields := append([]zap.Field{zap.String("cause", row.Code), zap.String("hint", row.Hint)}, more...)
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	l.Logger.Log(levels[row.Level], message, fields...)
}

var levels = map[cause.Level]zapcore.Level{
	cause.Info: zapcore.InfoLevel, cause.Warn: zapcore.WarnLevel, cause.Error: zapcore.ErrorLevel,
}

// SignInFailed writes the audit event and the line of a failed sign-in. status is the status of
// the response. err is nil if the callback's URL is the reason. The line is written once a minute
// while the store is down, and once a minute per cause if it is an ERROR about a URL.
func (l *Log) SignInFailed(r *http.Request, code string, status int, err error, more ...zap.Field) {
	l.event(LoginFailed, r, about{reason: code}, zap.Int("status", status))
	l.Metrics.CountLogin(code)
	more = append(append(RequestFields(r), zap.Int("status", status)), more...)
	row, _ := cause.Find(code)
	requests, due, limited := 0, true, true
	switch {
	case code == cause.StoreUnavailable:
		requests, due = l.storeFaults.Next(l.Now())
	case err == nil && row.Level == cause.Error:
		requests, due = l.refusals.Next(code, l.Now())
	default:
		limited = false
	}
	if limited {
		more = append(more, zap.Int("requests", requests))
	}
	if due {
		l.failure("sign-in failed", code, err, more...)
	}
}

// StoreFailed writes what the session store could not do, once a minute per message: every
// request could cause the line while the store is down. s may be nil.
func (l *Log) StoreFailed(message string, s *session.Session, err error) {
	requests, due := l.storeFailures.Next(message, l.Now())
	if !due {
		return
	}
	more := []zap.Field{zap.Int("requests", requests)}
	if s != nil {
		more = append(more, zap.String("session", s.ID.Hash()))
	}
	err = cause.Else(cause.StoreUnavailable, err)
	l.failure(message, cause.Of(err), err, more...)
}

// Refreshed writes the result of a request to refresh the tokens of s. It runs outside of any
// request.
func (l *Log) Refreshed(s *session.Session, err error) {
	if err == nil {
		l.Metrics.CountRefresh(metrics.ResultOK)
		l.Event(Refresh, nil, s, "")
		return
	}
	l.Metrics.CountRefresh(cause.Of(err))
	status := 0
	if pe, ok := errors.AsType[*oauth.Error](err); ok {
		status = pe.Status
	}
	l.Event(RefreshFailed, nil, s, cause.Of(err), zap.Int("status", status), zap.String("error", err.Error()))
	l.failure("refresh failed", cause.Of(err), err, zap.String("session", s.ID.Hash()), zap.Int("status", status))
}

// NotBegun implements renewal.Reporter. The line is written once a minute while the store is
// down.
func (l *Log) NotBegun(s *session.Session, err error) {
	err = cause.Else(cause.StoreUnavailable, err)
	l.Event(RefreshFailed, nil, s, cause.Of(err), zap.String("error", err.Error()))
	if sessions, due := l.unknownRefreshes.Next(l.Now()); due {
		l.failure("refresh failed before the refresh token was sent", cause.Of(err), err,
			zap.String("session", s.ID.Hash()), zap.Int("refreshes", sessions))
	}
}

// Unsaved implements renewal.Reporter.
func (l *Log) Unsaved(s *session.Session, err error) {
	l.failure("refreshed tokens not saved to the session store yet; kept in memory, retrying",
		cause.Of(cause.Else(cause.StoreUnavailable, err)), err, zap.String("session", s.ID.Hash()))
}

// Saved implements renewal.Reporter.
func (l *Log) Saved(s *session.Session) {
	l.Logger.Info("refreshed tokens are now saved to the session store", zap.String("session", s.ID.Hash()))
}

// TooLarge implements renewal.Reporter.
func (l *Log) TooLarge(s *session.Session, err error) {
	l.failure("refreshed tokens cannot be saved; the user must sign in again after a restart of this process",
		cause.Of(err), err, zap.String("session", s.ID.Hash()))
}

// NotEnded implements renewal.Reporter.
func (l *Log) NotEnded(s *session.Session, err error) {
	l.failure("the provider ended a session, and the session store could not be told; this process refuses the session",
		cause.Of(cause.Else(cause.StoreUnavailable, err)), err, zap.String("session", s.ID.Hash()))
}

// NotRestored implements renewal.Reporter.
func (l *Log) NotRestored(s *session.Session, err error) {
	l.StoreFailed("the session store has lost refreshed tokens, and they could not be saved again; kept in memory, the next request retries", s, err)
}

// ReadFailed writes that the user information of s could not be read, once a minute per cause:
// each user who is signed in causes the line while the provider is down.
func (l *Log) ReadFailed(s *session.Session, err error) {
	if errors.Is(err, session.ErrEnded) {
		return // the session's end is logged already
	}
	key, code := cause.Of(err), cause.Of(err)
	if errors.Is(err, account.ErrReadsBusy) {
		key = "busy"
	}
	if reads, due := l.failedReads.Next(key, l.Now()); due {
		l.failure("cannot read the user information", code, err, zap.String("session", s.ID.Hash()), zap.Int("reads", reads))
	}
}

// TopupFailed writes that the provider gave no usable top-up URL.
func (l *Log) TopupFailed(r *http.Request, s *session.Session, err error) {
	l.failure("the provider gave no usable top-up URL", cause.Of(err), err, append(RequestFields(r), zap.String("session", s.ID.Hash()))...)
}

// Fault writes that a session could not be read, and returns the cause. It writes nothing about
// a failed request to the provider, which is logged already, once for all who wait for it. It
// also writes nothing if the client has gone away. r is nil outside of a request.
func (l *Log) Fault(ctx context.Context, r *http.Request, err error) (code string) {
	err = cause.Else(cause.StoreUnavailable, err)
	code = cause.Of(err)
	_, asked := errors.AsType[*oauth.Error](err)
	line, message := &l.storeFaults, "cannot read sessions: the session store does not answer"
	switch {
	case ctx.Err() != nil:
		return code
	case errors.Is(err, renewal.ErrRefreshUnknown):
		line, message = &l.unknownRefreshes, "the result of a refresh is not known yet; requests of its session get 503"
	case asked:
		return code
	case errors.Is(err, account.ErrReadsBusy):
		line, message = &l.busyReads, "cannot confirm the user of a session from a cookie yet; its requests get 503"
	}
	if requests, due := line.Next(l.Now()); due {
		l.failure(message, code, err, append(RequestFields(r), zap.Int("requests", requests))...)
	}
	return code
}

// Hide removes a request from the access log, whose line would contain the code and the state.
func Hide(r *http.Request) { caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true) }

// OwnRequest hides a request from the access log, and writes its own line instead.
func (l *Log) OwnRequest(r *http.Request, endpoint string) {
	Hide(r)
	l.Logger.Info("request received; its URL is not logged", append(RequestFields(r), zap.String("endpoint", endpoint), zap.String("method", r.Method))...)
}

// Served writes the line of a request that Hide has hidden, after its response.
func (l *Log) Served(r *http.Request, endpoint string, status int, took time.Duration) {
	l.Logger.Info("request served; its URL is not logged", append(RequestFields(r),
		zap.String("endpoint", endpoint), zap.String("method", r.Method), zap.Int("status", status), zap.Duration("duration", took))...)
}

// maxLoggedIssuer limits the length of an issuer in the log, in bytes.
const maxLoggedIssuer = 256

// Issuer writes that a callback named an issuer that is not the configured one: either the
// provider's issuer is on another host, or it is an attack (RFC 9207 section 4). An attacker
// can write anything into the callback's URL, so a value that does not have the form of an
// issuer is not written, and the caller limits the line. requests counts the callbacks.
func (l *Log) Issuer(issuer, expected string, requests int) {
	u, err := url.Parse(issuer)
	if err != nil || len(issuer) > maxLoggedIssuer || !origin.IsSecure(u) || u.User != nil || strings.ContainsAny(issuer, "?#") {
		issuer = "(not an issuer identifier)"
	}
	l.Logger.Warn("the callback's iss differs from the configured issuer; if the provider is right, set `issuer` in the provider block",
		zap.String("iss", issuer), zap.String("expected", expected), zap.Int("requests", requests))
}

// Interface guard.
var _ renewal.Reporter = (*Log)(nil)
