package tollgate

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func init() {
	places["redis"] = redisPlace(true)
	places["redis without client cache"] = redisPlace(false)
}

// redisPlace is a Redis of its own for the suite.
func redisPlace(clientCache bool) func(*testing.T) placeUnderTest {
	return func(t *testing.T) placeUnderTest {
		server := startRedis(t)
		options := server.options()
		options.clientCache = clientCache
		return placeUnderTest{
			open: func(t *testing.T) recordStore { return newApartRedisRecords(options, defaultRedisPrefix) },
			fail: func(*testing.T) { server.kill() },
			mend: func(*testing.T) { server.restart() },
		}
	}
}

// opened gives one process's store over Redis.
func (s *redisServer) opened(t *testing.T, options redisOptions) *ticketStore {
	t.Helper()
	p := placeUnderTest{open: func(*testing.T) recordStore { return newApartRedisRecords(options, defaultRedisPrefix) }}
	return p.suiteStore(t)
}

func TestRedisIsNotAskedForWhatIsCachedAndTellsWhatChanges(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	here, there := server.opened(t, server.options()), server.opened(t, server.options())
	s, value := keepInStore(t, here, freshSession("12345"))
	mustLoad(t, here, value)
	before := server.calls("get")
	for range 100 {
		if mustLoad(t, here, value) == nil {
			t.Fatal("the session is gone")
		}
	}
	if asked := server.calls("get") - before; asked != 0 {
		t.Errorf("a cached session was asked for %d times", asked)
	}
	if err := there.end(t.Context(), s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "the end is known everywhere", func() bool { return mustLoad(t, here, value) == nil })
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	// What is gone from Redis altogether is gone from the cache, too.
	_, value = keepInStore(t, here, freshSession("12345"))
	mustLoad(t, here, value)
	server.must("FLUSHALL")
	eventually(t, "a flushed session is gone", func() bool { return mustLoad(t, here, value) == nil })
}

func TestRedisIsAskedEachTimeWithoutTheClientCache(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	options := server.options()
	options.clientCache = false
	store := server.opened(t, options)
	_, value := keepInStore(t, store, freshSession("12345"))
	before := server.calls("get")
	for range 10 {
		mustLoad(t, store, value)
	}
	if asked := server.calls("get") - before; asked != 10 {
		t.Errorf("ten requests asked Redis %d times", asked)
	}
	if tracking := server.must("INFO", "clients"); !strings.Contains(tracking, "tracking_clients:0") {
		t.Errorf("Redis is to tell what changes:\n%s", tracking)
	}
}

func TestARedisThatHangsIsAFaultWithinABoundAndComesBack(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store := server.opened(t, server.options())
	s, value := keepInStore(t, store, freshSession("12345"))
	mustLoad(t, store, value)
	server.freeze()
	began := time.Now()
	if _, err := store.reread(t.Context(), s); err == nil || !strings.Contains(err.Error(), "no answer within 1s") {
		t.Errorf("reading: %v", err)
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("reading took %v", took)
	}
	// What is cached is trusted no longer when Redis cannot take it back.
	eventually(t, "the cache is dropped", func() bool { _, err := store.load(t.Context(), value); return err != nil })
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the cache was used for %v", took)
	}
	began = time.Now()
	if _, err := store.create(t.Context(), freshSession("1")); err == nil {
		t.Error("writing went well")
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("writing took %v", took)
	}
	server.thaw()
	eventually(t, "the session is back", func() bool { found, err := store.load(t.Context(), value); return err == nil && found.session != nil })
}

func TestEveryWordOfTheRedisStoreBecomesItsJSONKey(t *testing.T) {
	folder := t.TempDir()
	got, err := adaptHandler(minimalBlock + "session {\nstore redis {\n" + strings.ReplaceAll(fullRedis, "{file}", folder) + "\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"module": "redis", "address": []any{"127.0.0.1:26379", "127.0.0.1:26380"}, "username": "gateway", "password": "a password",
		"database": float64(3), "sentinel": "mymaster", "prefix": "app:", "client_cache": false,
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

func TestAFaultInTheRedisStoreNamesItsWordAndItsLine(t *testing.T) {
	for block, want := range map[string]string{
		"":                                     "session.store.address: is required: where Redis is, as <host>:<port>, at Caddyfile:9",
		"address":                              "session.store.address: wrong number of arguments, at Caddyfile:10",
		"address redis":                        `session.store.address: "redis" is not <host>:<port>, at Caddyfile:10`,
		"address redis:http":                   `session.store.address: "redis:http" is not <host>:<port>, at Caddyfile:10`,
		"address :6379":                        `session.store.address: ":6379" is not <host>:<port>, at Caddyfile:10`,
		"address redis://h:1":                  `session.store.address: "redis://h:1" is not <host>:<port>, at Caddyfile:10`,
		"address a:0":                          `session.store.address: "a:0" is not <host>:<port>, at Caddyfile:10`,
		"address a:1 b:2":                      "session.store.address: several addresses need sentinel or cluster, at Caddyfile:10",
		"address a:1\naddress b:1":             "address stands twice, at Caddyfile:11",
		"address a:1\nuser x":                  "unknown word 'user', at Caddyfile:11",
		"address a:1\nusername x":              "session.store.username: needs password, at Caddyfile:11",
		"address a:1\npassword \"\"":           "session.store.password is empty, at Caddyfile:11",
		"address a:1\ndatabase two":            "session.store.database: 'two' is not a whole number, at Caddyfile:11",
		"address a:1\ndatabase -1":             "session.store.database: must not be negative, at Caddyfile:11",
		"address a:1\ncluster\ndatabase 1":     "session.store.database: contradicts cluster, which has database 0 only, at Caddyfile:12",
		"address a:1\nsentinel m\ncluster":     "session.store.cluster: contradicts sentinel: a cluster has no sentinels, at Caddyfile:12",
		"address a:1\ncluster on":              "session.store.cluster: wrong number of arguments, at Caddyfile:11",
		"address a:1\npasswort x":              "unknown word 'passwort'; did you mean 'password'?, at Caddyfile:11",
		"address a:1\nprefix \"a b\"":          "session.store.prefix: must have neither braces nor white space, at Caddyfile:11",
		"address a:1\nclient_cache maybe":      "session.store.client_cache: 'maybe' is neither on nor off, at Caddyfile:11",
		"address a:1\ntls on":                  "session.store.tls: wrong number of arguments, at Caddyfile:11",
		"address a:1\ntls {\ncert x\n}":        "unknown word 'cert'",
		"address a:1\ntls {\ncertificate x\n}": "session.store.tls: certificate and key need each other, at Caddyfile:11",
		"address a:1\ntls {\nkey x\n}":         "session.store.tls: certificate and key need each other, at Caddyfile:11",
	} {
		_, err := adapt("http:// {\ntollgate {\nprovider aihubmix {\nclient_id id\nclient_secret secret\n}\n" +
			"redirect_uri https://app.example.com/cb\nsession {\nstore redis {\n" + block + "\n}\n}\n}\n}\n")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", block, err, want)
		}
	}
	if _, err := adaptHandler(minimalBlock + "session {\nstore redis a:1\n}"); err == nil {
		t.Error("an argument after the store's name went unnoticed")
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
client_cache off`

// BenchmarkRedisCachedGet is what a request of a session in use costs.
func BenchmarkRedisCachedGet(b *testing.B) {
	server := startRedis(b)
	records := newApartRedisRecords(server.options(), defaultRedisPrefix)
	b.Cleanup(records.close)
	name := freshSession("12345").id.hash()
	r := &record{recordHead{revision: 1, expires: time.Now().Add(time.Hour), kind: recordLive}, strings.Repeat("x", 2000)}
	if ok, err := records.replace(b.Context(), name, 0, r); !ok || err != nil {
		b.Fatal(ok, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := records.get(b.Context(), name, false); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
