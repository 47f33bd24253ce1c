package tollgate

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// audit writes the audit events, and log lines that must not contain a secret.
type audit struct {
	logger  *zap.Logger
	metrics *metrics.Set
}

// event writes one audit event with the user, the session and the client address. The session
// is named by its hash. The event never contains a token, code, state, cookie or secret.
func (a *audit) event(event string, r *http.Request, s *session.Session, fields ...zap.Field) {
	fields = append(fields, requestFields(r)...)
	if s != nil {
		fields = append(fields, zap.String("user_id", s.User.ID()), zap.String("session", s.ID.Hash()))
	}
	a.logger.Named("audit").Info(event, fields...)
}

// revoked logs that an operator ended a session. user is empty if the operator named only the
// session.
func (a *audit) revoked(r *http.Request, session, user string) {
	fields := []zap.Field{zap.String("session", session), zap.String("reason", "admin")}
	if user != "" {
		fields = append(fields, zap.String("user_id", user))
	}
	if ip, _, err := net.SplitHostPort(r.RemoteAddr); err == nil { // fails for a Unix socket
		fields = append(fields, zap.String("client_ip", ip))
	}
	a.logger.Named("audit").Info("session_revoked", fields...)
}

// requestFields returns the client address and the id of a request, if known.
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

// refresh logs the result of a token refresh, which runs outside of any request. A failure that
// only the operator can fix is an error. A temporary failure is not.
func (a *audit) refresh(s *session.Session, err error) {
	log := a.logger.Named("audit")
	fields := []zap.Field{zap.String("user_id", s.User.ID()), zap.String("session", s.ID.Hash())}
	a.metrics.CountRefresh(resultOf(err))
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
		a.logger.Warn("the provider refuses to refresh this session: its user must sign in again when the access token expires", fields...)
	}
	log.Info("refresh_failed", fields...)
}

// ownRequest removes a request from the access log, whose line would contain the code and the
// state, and writes its own line without them.
func (a *audit) ownRequest(r *http.Request, endpoint string) {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	a.logger.Info("request received; its URL is not logged", append(requestFields(r), zap.String("endpoint", endpoint), zap.String("method", r.Method))...)
}

// fault logs that a session could not be read. It does not log a failed refresh, which is
// already logged once for all waiting requests. It also logs nothing if the client has gone
// away or the request has timed out.
func (a *audit) fault(ctx context.Context, err error) {
	if _, logged := errors.AsType[*oauth.Error](err); logged || ctx.Err() != nil {
		return
	}
	if errors.Is(err, account.ErrReadsBusy) {
		a.logger.Warn("cannot confirm the user of a session from a cookie yet; its requests get 503", zap.Error(err))
		return
	}
	a.logger.Error("the session store does not answer", zap.Error(err))
}
