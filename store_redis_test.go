package tollgate_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
)

func TestEveryOptionOfTheRedisStoreBecomesItsJSONKey(t *testing.T) {
	folder := t.TempDir()
	got, err := adaptHandler(minimalBlock + "session {\nstore redis {\n" + strings.ReplaceAll(fullRedis, "{file}", folder) + "\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"module": "redis", "address": []any{"127.0.0.1:26379", "127.0.0.1:26380"}, "username": "gateway", "password": "a password",
		"database": float64(3), "sentinel": "mymaster", "prefix": "app:", "client_cache": false, "from_cookies": float64(2 * time.Hour),
		"tls": map[string]any{
			"ca": folder + "/ca.pem", "certificate": folder + "/client.pem", "key": folder + "/client.key", "server_name": "redis.example.com",
		},
	}
	if diff := cmp.Diff(want, got["session"].(map[string]any)["store"]); diff != "" {
		t.Error(diff)
	}
	got, err = adaptHandler(minimalBlock + "session {\nstore redis {\naddress a:1 b:2\ncluster\ntls\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	want = map[string]any{"module": "redis", "address": []any{"a:1", "b:2"}, "cluster": true, "tls": map[string]any{}}
	if diff := cmp.Diff(want, got["session"].(map[string]any)["store"]); diff != "" {
		t.Error(diff)
	}
}

func TestRedisConfigErrorNamesOptionAndLine(t *testing.T) {
	for block, want := range map[string]string{
		"":                                     "session.store.address: is required: the address of Redis, as <host>:<port>, at Caddyfile:9",
		"address":                              "session.store.address: wrong number of arguments, at Caddyfile:10",
		"address redis":                        `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address redis:http":                   `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address :6379":                        `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address redis://h:1":                  `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address a:0":                          `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address a:1 b:2":                      "session.store.address: several addresses need sentinel or cluster, at Caddyfile:10",
		"address a:1\naddress b:1":             "address is set twice, at Caddyfile:11",
		"address a:1\nuser x":                  "unknown word 'user'; did you mean 'username'?, at Caddyfile:11",
		"address a:1\nusername x":              "session.store.username: needs password, at Caddyfile:11",
		"address a:1\npassword \"\"":           "session.store.password is empty, at Caddyfile:11",
		"address a:1\ndatabase two":            "session.store.database: 'two' is not a whole number, at Caddyfile:11",
		"address a:1\ndatabase -1":             "session.store.database: must not be negative, at Caddyfile:11",
		"address a:1\ncluster\ndatabase 1":     "session.store.database: must be 0: a Redis Cluster has only database 0, at Caddyfile:12",
		"address a:1\nsentinel m\ncluster":     "session.store.cluster: cannot be used with sentinel: remove one of the two, at Caddyfile:12",
		"address a:1\ncluster on":              "session.store.cluster: wrong number of arguments, at Caddyfile:11",
		"address a:1\npasswort x":              "unknown word 'passwort'; did you mean 'password'?, at Caddyfile:11",
		"address a:1\nprefix \"a b\"":          "session.store.prefix: must not contain a brace, a space or a line break, at Caddyfile:11",
		"address a:1\nclient_cache maybe":      "session.store.client_cache: 'maybe' is neither on nor off, at Caddyfile:11",
		"address a:1\ntls on":                  "session.store.tls: wrong number of arguments, at Caddyfile:11",
		"address a:1\ntls {\ncert x\n}":        "unknown word 'cert'",
		"address a:1\ntls {\ncertificate x\n}": "session.store.tls: certificate and key need each other, at Caddyfile:11",
		"address a:1\ntls {\nkey x\n}":         "session.store.tls: certificate and key need each other, at Caddyfile:11",
	} {
		_, err := gatewaytest.Adapt("http:// {\ntollgate {\nprovider aihubmix {\nclient_id id\nclient_secret secret\n}\n" +
			"redirect_uri https://app.example.com/cb\nsession {\nstore redis {\n" + block + "\n}\n}\n}\n}\n")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", block, err, want)
		}
	}
	const redisWithArgument = "session {\nstore redis a:1\n}"
	if _, err := adaptHandler(minimalBlock + redisWithArgument); err == nil {
		t.Errorf("%q: got no error, want one about the argument after the store's name", redisWithArgument)
	}
}

// fullRedis has every word of the store but `cluster`, which contradicts some.
const fullRedis = `address 127.0.0.1:26379 127.0.0.1:26380
username gateway
password "a password"
database 3
tls {
	ca {file}/ca.pem
	certificate {file}/client.pem
	key {file}/client.key
	server_name redis.example.com
}
sentinel mymaster
prefix app:
client_cache off
from_cookies 2h`

func TestAuthRespondsInTimeWhileRedisHangs(t *testing.T) {
	server := redistest.Start(t)
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "session {\n\t\t\tstore redis {\n\t\t\t\taddress " + server.Address() +
		"\n\t\t\t\tclient_cache off\n\t\t\t}\n\t\t}\n\t\tforward_auth"})
	b := s.NewBrowser().SignIn()
	wantAuth(b.Get("/oauth/auth"), t, "before", 200, "", gatewaytest.UserID)
	s.Clock.AuthTimeout, s.Clock.StoreTimeout = gatewaytest.AsShipped, gatewaytest.AsShipped
	s.Load()
	server.Freeze()
	wantAuth(b.Get("/oauth/auth"), t, "while Redis hangs", 403, "unavailable", "")
	if a := b.Get("/"); a.StatusCode != http.StatusServiceUnavailable { // after the store's own timeout, long before the browser's
		t.Errorf("a request while Redis hangs: status %d, want 503", a.StatusCode)
	}
	server.Thaw()
	gatewaytest.Eventually(t, "the question is answered again", func() bool { return b.Get("/oauth/auth").StatusCode == http.StatusOK })
}
