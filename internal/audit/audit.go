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

	// lines limits the lines that any client can cause, or every session during an outage.
	lines rare.Lines
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

// requestIDKey is the key of the request id that WithRequestID puts into a context.
type requestIDKey struct{}

// WithRequestID returns the context of r with the id of r, for calls that go on after r has
// ended. They must not read the id from r itself: Caddy keeps it in a map of the request.
func WithRequestID(r *http.Request) context.Context {
	return context.WithValue(r.Context(), requestIDKey{}, RequestID(r))
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

// due counts a line that any client can cause, or every session during an outage. due is true
// for the first line with the message and about, and then once a minute. about comes from a
// small fixed set, such as the causes. count is the field with the number since the last line.
func (l *Log) due(message, about, counts string) (count zap.Field, due bool) {
	n, due := l.lines.Next(message+"\x00"+about, l.Now())
	return zap.Int(counts, n), due
}

// Rarely writes a line that any client can cause: at once, and then once a minute with the
// number of requests since the last line. Lines with another about are counted apart; about
// comes from a small fixed set.
func (l *Log) Rarely(level zapcore.Level, message, about string, fields ...zap.Field) {
	if requests, due := l.due(message, about, "requests"); due {
		l.Logger.Log(level, message, append(fields, requests)...)
	}
}

// SignInFailed writes the audit event and the line of a failed sign-in. status is the status of
// the response. err is nil if the callback's URL is the reason. The page and the line share a
// request id, so each failure has a line of its own. Only two kinds are written once a minute
// per cause: every request to `start` fails while the store is down, and anybody can write a
// code that is an ERROR into the callback's URL.
func (l *Log) SignInFailed(r *http.Request, code string, status int, err error, more ...zap.Field) {
	event := []zap.Field{zap.Int("status", status)}
	if err != nil {
		event = append(event, zap.String("error", err.Error()))
	}
	l.event(LoginFailed, r, about{reason: code}, event...)
	l.Metrics.CountLogin(code)
	const message = "sign-in failed"
	more = append(append(RequestFields(r), zap.Int("status", status)), more...)
	row, _ := cause.Find(code)
	if code != cause.StoreUnavailable && (err != nil || row.Level != cause.Error) {
		l.failure(message, code, err, more...)
	} else if requests, due := l.due(message, code, "requests"); due {
		l.failure(message, code, err, append(more, requests)...)
	}
}

// StoreFailed writes what the session store could not do, once a minute per message and cause.
// s may be nil.
func (l *Log) StoreFailed(message string, s *session.Session, err error) {
	err = cause.Else(cause.StoreUnavailable, err)
	requests, due := l.due(message, cause.Of(err), "requests")
	if !due {
		return
	}
	more := []zap.Field{requests}
	if s != nil {
		more = append(more, zap.String("session", s.ID.Hash()))
	}
	l.failure(message, cause.Of(err), err, more...)
}

// Refreshed writes the result of a request to refresh the tokens of s. It runs outside of any
// request. The audit event is written for each session, the line once a minute per cause.
func (l *Log) Refreshed(s *session.Session, err error) {
	if err == nil {
		l.Metrics.CountRefresh(metrics.ResultOK)
		l.Event(Refresh, nil, s, "")
		return
	}
	code := cause.Of(err)
	l.Metrics.CountRefresh(code)
	status := 0
	if pe, ok := errors.AsType[*oauth.Error](err); ok {
		status = pe.Status
	}
	l.Event(RefreshFailed, nil, s, code, zap.Int("status", status), zap.String("error", err.Error()))
	const message = "refresh failed"
	if refreshes, due := l.due(message, code, "refreshes"); due {
		l.failure(message, code, err, zap.String("session", s.ID.Hash()), zap.Int("status", status), refreshes)
	}
}

// NotBegun implements renewal.Reporter. The line is written once a minute per cause.
func (l *Log) NotBegun(s *session.Session, err error) {
	err = cause.Else(cause.StoreUnavailable, err)
	l.Event(RefreshFailed, nil, s, cause.Of(err), zap.String("error", err.Error()))
	const message = "refresh failed before the refresh token was sent"
	if refreshes, due := l.due(message, cause.Of(err), "refreshes"); due {
		l.failure(message, cause.Of(err), err, zap.String("session", s.ID.Hash()), refreshes)
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
	l.StoreFailed("refreshed tokens cannot be saved; the user must sign in again after a restart of this process", s, err)
}

// NotEnded implements renewal.Reporter.
func (l *Log) NotEnded(s *session.Session, err error) {
	l.StoreFailed("the provider ended a session, and the session store could not be told; this process refuses the session", s, err)
}

// NotRestored implements renewal.Reporter.
func (l *Log) NotRestored(s *session.Session, err error) {
	l.StoreFailed("the session store has lost refreshed tokens, and they could not be saved again; kept in memory, the next request retries", s, err)
}

// ReadFailed writes that the user information of s could not be read, once a minute per cause:
// each user who is signed in causes the line while the provider is down. The line has the
// request id if ctx is from WithRequestID.
func (l *Log) ReadFailed(ctx context.Context, s *session.Session, err error) {
	if errors.Is(err, session.ErrEnded) {
		return // the session's end is logged already
	}
	const message = "cannot read the user information"
	about := cause.Of(err)
	if errors.Is(err, account.ErrReadsBusy) {
		about = "busy" // apart from the timeouts, which have the same cause
	}
	reads, due := l.due(message, about, "reads")
	if !due {
		return
	}
	more := []zap.Field{zap.String("session", s.ID.Hash()), reads}
	if id, ok := ctx.Value(requestIDKey{}).(string); ok {
		more = append(more, zap.String("request_id", id))
	}
	l.failure(message, cause.Of(err), err, more...)
}

// TopupFailed writes that the provider gave no usable top-up URL. There is no audit event, so
// this line is the only one with the request id that the page shows.
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
	message := "cannot read sessions: the session store does not answer"
	switch {
	case ctx.Err() != nil:
		return code
	case errors.Is(err, renewal.ErrRefreshUnknown):
		message = "the result of a refresh is not known yet; requests of its session get 503"
	case asked:
		return code
	case errors.Is(err, account.ErrReadsBusy):
		message = "cannot confirm the user of a session from a cookie yet; its requests get 503"
	}
	if requests, due := l.due(message, code, "requests"); due {
		l.failure(message, code, err, append(RequestFields(r), requests)...)
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
// issuer is not written, and the line is written once a minute.
func (l *Log) Issuer(issuer, expected string) {
	u, err := url.Parse(issuer)
	if err != nil || len(issuer) > maxLoggedIssuer || !origin.IsSecure(u) || u.User != nil || strings.ContainsAny(issuer, "?#") {
		issuer = "(not an issuer identifier)"
	}
	l.Rarely(zap.WarnLevel, "the callback's iss differs from the configured issuer; if the provider is right, set `issuer` in the provider block", "",
		zap.String("iss", issuer), zap.String("expected", expected))
}

// Interface guard.
var _ renewal.Reporter = (*Log)(nil)
