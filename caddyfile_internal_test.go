package tollgate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsAreAsDocumented(t *testing.T) {
	_, handlers, err := provision("{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + minimalBlock + "}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	h := handlers[0]
	t.Cleanup(func() { h.Cleanup() })
	got := map[string]string{
		"authorization_endpoint": h.settings.client.Config.Endpoint.AuthURL,
		"token_endpoint":         h.settings.client.Config.Endpoint.TokenURL,
		"userinfo_endpoint":      h.settings.client.UserinfoEndpoint,
		"topup_endpoint":         h.settings.client.TopupEndpoint,
		"revocation_endpoint":    h.settings.client.RevocationEndpoint,
		"balance_endpoint":       h.settings.client.BalanceEndpoint,
		"scopes":                 strings.Join(h.settings.client.Config.Scopes, " "),
		"token_lifetime":         h.settings.client.TokenLifetime.String(),
		"timeout":                h.settings.client.Timeout.String(),
		"max_age":                h.settings.ages.MaxAge.String(),
		"max_stale":              h.settings.ages.MaxStale.String(),
		"refresh_before":         h.settings.refreshBefore.String(),
		"stream_recheck":         h.settings.streamRecheck.String(),
		"lifetime":               h.settings.lifetime.String(),
		"idle_timeout":           h.settings.idleTimeout.String(),
		"cookie":                 h.settings.cookies.Name,
		"active_status":          h.settings.activeStatus,
		"start":                  h.settings.endpoints["start"],
		"callback":               h.settings.endpoints["callback"],
		"after_login":            h.settings.afterLogin,
		"origin":                 h.settings.origin,
	}
	want := map[string]string{
		"authorization_endpoint": "https://api.aihubmix.com/api/oauth2/authorize",
		"token_endpoint":         "https://api.aihubmix.com/api/oauth2/token",
		"userinfo_endpoint":      "https://api.aihubmix.com/api/oauth2/userinfo",
		"topup_endpoint":         "https://api.aihubmix.com/api/oauth2/topup",
		"revocation_endpoint":    "",
		"balance_endpoint":       "",
		"scopes":                 "profile balance",
		"token_lifetime":         "2h0m0s",
		"timeout":                "10s",
		"max_age":                "1m0s",
		"max_stale":              "15m0s",
		"refresh_before":         "5m0s",
		"stream_recheck":         "1m0s",
		"lifetime":               "720h0m0s",
		"idle_timeout":           "0s",
		"cookie":                 "__Host-tollgate",
		"active_status":          "1",
		"start":                  "/oauth/start",
		"callback":               "/oauth/callback",
		"after_login":            "/",
		"origin":                 "https://app.example.com",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
