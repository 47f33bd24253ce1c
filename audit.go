package tollgate

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// audit writes the audit events, and the log lines that must not hold a secret.
type audit struct {
	logger *zap.Logger
}

// event writes one audit event: who, which session, from where. The session is
// named by its hash; no token, code, state, cookie or secret is ever part of it.
func (a *audit) event(event string, r *http.Request, s *session.Session, fields ...zap.Field) {
	fields = append(fields, requestFields(r)...)
	if s != nil {
		fields = append(fields, zap.String("user_id", s.User.ID()), zap.String("session", s.ID.Hash()))
	}
	a.logger.Named("audit").Info(event, fields...)
}

// revoked writes down that an operator ended a session. Whose it was is known
// only where the operator named the user.
func (a *audit) revoked(r *http.Request, session, user string) {
	fields := []zap.Field{zap.String("session", session), zap.String("reason", "admin")}
	if user != "" {
		fields = append(fields, zap.String("user_id", user))
	}
	if ip, _, err := net.SplitHostPort(r.RemoteAddr); err == nil { // a Unix socket has none
		fields = append(fields, zap.String("client_ip", ip))
	}
	a.logger.Named("audit").Info("session_revoked", fields...)
}

// requestFields say from where, and which, a request was.
func requestFields(r *http.Request) []zap.Field {
	var fields []zap.Field
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		fields = append(fields, zap.String("client_ip", ip))
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if id, ok := repl.GetString("http.request.uuid"); ok {
			fields = append(fields, zap.String("request_id", id))
		}
	}
	return fields
}

// refresh writes down how a refresh went. It runs apart from any request. A
// failure that only the operator can mend is an error; one that will pass is not.
func (a *audit) refresh(s *session.Session, err error) {
	log := a.logger.Named("audit")
	fields := []zap.Field{zap.String("user_id", s.User.ID()), zap.String("session", s.ID.Hash())}
	if err == nil {
		log.Info("refresh", fields...)
		return
	}
	if pe, ok := errors.AsType[*oauth.Error](err); ok {
		fields = append(fields, zap.Int("status", pe.Status), zap.String("code", pe.Code))
	}
	fields = append(fields, zap.String("reason", err.Error()))
	if oauth.FailureOf(err) == oauth.FailureOperator {
		a.logger.Error("the provider refuses this client: check client_id and client_secret", fields...)
	}
	if oauth.FailureOf(err) == oauth.FailureRefused {
		a.logger.Warn("the provider refuses to refresh this session: its user has to sign in again when the access token ends", fields...)
	}
	log.Info("refresh_failed", fields...)
}

// ownRequest takes a request out of the access log, whose line would hold the code and
// the state, and writes a line of our own without them.
func (a *audit) ownRequest(r *http.Request, endpoint string) {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	a.logger.Info("handled request", append(requestFields(r), zap.String("endpoint", endpoint), zap.String("method", r.Method))...)
}

// fault writes down that nobody can tell whether there is a session. A refresh
// that failed has been written down already, once for all who waited; a client
// that went away, or whose time is up, is nobody's fault.
func (a *audit) fault(ctx context.Context, err error) {
	if _, told := errors.AsType[*oauth.Error](err); told || ctx.Err() != nil {
		return
	}
	a.logger.Error("the session store does not answer", zap.Error(err))
}
