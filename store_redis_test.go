package tollgate

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/stores/redis"
)

func init() {
	places["redis"] = redisPlace(true)
	places["redis without client cache"] = redisPlace(false)
}

// redisPlace is a Redis of its own for the suite. It is set up as the example says, so
// that the suite finds out what the example's user may not do.
func redisPlace(clientCache bool) func(*testing.T) placeUnderTest {
	return func(t *testing.T) placeUnderTest {
		flags, user, password := exampleRedisFlags(t)
		server := startRedis(t, flags...)
		options := server.options()
		options.ClientCache, options.Username, options.Password = clientCache, user, password
		return placeUnderTest{
			open: func(t *testing.T) records.Store { return newApartRedisRecords(options, redis.DefaultRedisPrefix) },
			fail: func(*testing.T) { server.kill() },
			mend: func(*testing.T) { server.restart() },
		}
	}
}

var redisConf = regexp.MustCompile("(?s)In `redis.conf`:\n\n```\n(.*?)```")

// exampleRedisFlags are the lines for redis.conf of the example, as flags.
func exampleRedisFlags(t *testing.T) (flags []string, user, password string) {
	t.Helper()
	lines := redisConf.FindStringSubmatch(readFile(t, "examples/replicas/README.md"))
	if lines == nil {
		t.Fatal("the example has no lines for redis.conf")
	}
	for line := range strings.Lines(lines[1]) {
		words := strings.Fields(line)
		flags = append(append(flags, "--"+words[0]), words[1:]...)
		if words[0] == "user" {
			user, password = words[1], strings.TrimPrefix(words[3], ">")
		}
	}
	return flags, user, password
}

// opened gives one process's store over Redis.
func (s *redisServer) opened(t *testing.T, options redis.Options) *records.Tickets {
	t.Helper()
	p := placeUnderTest{open: func(*testing.T) records.Store { return newApartRedisRecords(options, redis.DefaultRedisPrefix) }}
	return p.suiteStore(t)
}

func TestCachedRedisReadsFollowChanges(t *testing.T) {
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
	if err := there.End(t.Context(), s, time.Time{}); err != nil {
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
	options.ClientCache = false
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

func TestHangingRedisFailsInTimeAndRecovers(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store := server.opened(t, server.options())
	s, value := keepInStore(t, store, freshSession("12345"))
	mustLoad(t, store, value)
	server.freeze()
	began := time.Now()
	if _, err := store.Reread(t.Context(), s); err == nil || !strings.Contains(err.Error(), "no answer within 1s") {
		t.Errorf("reading: %v", err)
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("reading took %v", took)
	}
	// What is cached is trusted no longer when Redis cannot take it back.
	eventually(t, "the cache is dropped", func() bool { _, err := store.Load(t.Context(), value); return err != nil })
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the cache was used for %v", took)
	}
	began = time.Now()
	if _, err := store.Create(t.Context(), freshSession("1")); err == nil {
		t.Error("writing went well")
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("writing took %v", took)
	}
	server.thaw()
	eventually(t, "the session is back", func() bool { found, err := store.Load(t.Context(), value); return err == nil && found.Session != nil })
}

func TestARedisThatCannotWriteIsAFaultAndStillReads(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	for fault, commands := range map[string][2][]string{
		"OOM":      {{"CONFIG", "SET", "maxmemory", "1"}, {"CONFIG", "SET", "maxmemory", "0"}},
		"READONLY": {{"REPLICAOF", "127.0.0.1", "1"}, {"REPLICAOF", "NO", "ONE"}},
	} {
		store := server.opened(t, server.options())
		s, value := keepInStore(t, store, freshSession("12345"))
		server.must(commands[0]...)
		for name, err := range map[string]error{
			"creating":    keeps(t, store),
			"saving":      func() error { _, err := store.Save(t.Context(), s.Renewed(s.Tokens)); return err }(),
			"being ready": store.Ready(t.Context()),
		} {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: %s: %v", fault, name, err)
			}
		}
		if got, err := store.Reread(t.Context(), s); got == nil || err != nil {
			t.Errorf("%s: reading: %v, %v", fault, got, err)
		}
		if mustLoad(t, server.opened(t, server.options()), value) == nil {
			t.Errorf("%s: a gateway that has not read the session before does not find it", fault)
		}
		server.must(commands[1]...)
		eventually(t, "it is ready again", func() bool { return store.Ready(t.Context()) == nil })
		if _, err := store.Save(t.Context(), s.Renewed(s.Tokens)); err != nil || mustLoad(t, store, value) == nil {
			t.Errorf("%s: afterwards: %v", fault, err)
		}
	}
}

func TestRedisForgetsRecordsAndNotesWhenTheyEnd(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store := server.opened(t, server.options())
	store.Lifetime = 300 * time.Millisecond
	keepInStore(t, store, freshSession("12345"))
	if keys := server.must("DBSIZE"); keys != "2" {
		t.Fatalf("%s keys: %s", keys, server.must("KEYS", "*"))
	}
	eventually(t, "everything is gone", func() bool { return server.must("DBSIZE") == "0" })

	brief, _ := keepInStore(t, store, freshSession("12345"))
	store.Lifetime = time.Hour
	long, _ := keepInStore(t, store, freshSession("12345"))
	time.Sleep(time.Until(brief.Kept.Expires) + 5*time.Millisecond)
	last, _ := keepInStore(t, store, freshSession("12345"))
	set := redis.DefaultRedisPrefix + redis.RedisUser + last.Kept.User
	noted := server.must("ZRANGE", set, "0", "-1")
	if strings.Contains(noted, brief.ID.Hash()) || !strings.Contains(noted, long.ID.Hash()) || !strings.Contains(noted, last.ID.Hash()) {
		t.Errorf("noted are:\n%s", noted)
	}
	if until := server.must("PEXPIRETIME", set); until != redis.Milliseconds(last.Kept.Expires) && until != redis.Milliseconds(long.Kept.Expires) {
		t.Errorf("the notes stay until %s, the sessions until %s", until, redis.Milliseconds(last.Kept.Expires))
	}
}

func TestALockOfRedisEndsWithItsLeaseAndBelongsToOne(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	here, there := server.opened(t, server.options()).Records, server.opened(t, server.options()).Records
	const name, key, lease = "0123", "tollgate:lock:0123", time.Minute
	lost, ok, err := here.TryLock(t.Context(), name, lease)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, ok, err := there.TryLock(t.Context(), name, lease); ok || err != nil {
		t.Fatalf("a second lock: %v, %v", ok, err)
	}
	server.must("PEXPIRE", key, "10000") // most of the lease is over
	if err := lost.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := server.must("PTTL", key); len(left) < len("10001") || left <= "10000" {
		t.Errorf("a lease that was renewed ends in %s ms", left)
	}
	server.must("PEXPIRE", key, "1") // all of it is over
	var held session.Lock
	eventually(t, "the lease ends", func() bool { held, ok, err = there.TryLock(t.Context(), name, time.Minute); return ok && err == nil })
	if err := lost.Renew(t.Context()); err == nil {
		t.Error("a lock that was lost was renewed")
	}
	if err := lost.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, ok, _ := here.TryLock(t.Context(), name, lease); ok {
		t.Error("a lock that was lost released another's")
	}
	if err := held.Renew(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestWhatIsNoRecordIsNotReplacedInRedis: something else that uses the same names.
func TestWhatIsNoRecordIsNotReplacedInRedis(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	held := server.opened(t, server.options()).Records
	next := &records.Record{Head: session.Head{Revision: 1, Expires: time.Now().Add(time.Hour), Kind: session.RecordLive}, Sealed: "x"}
	for _, standing := range []string{"", "something else", "1 0 x", "2 7 x", "1 7", "1 -7 x", " 1 7 x"} {
		server.must("SET", redis.DefaultRedisPrefix+redis.RedisSession+"00", standing)
		for _, revision := range []uint64{0, 7} {
			if ok, err := held.Replace(t.Context(), "00", revision, next); ok || err != nil {
				t.Errorf("revision %d in the place of %q: %v, %v", revision, standing, ok, err)
			}
		}
	}
	server.must("SET", redis.DefaultRedisPrefix+redis.RedisSession+"00", "1 7 x")
	if ok, err := held.Replace(t.Context(), "00", 7, next); !ok || err != nil {
		t.Errorf("a record: %v, %v", ok, err)
	}
}

func TestARedisThatWasRestartedLeavesNothingStale(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store := server.opened(t, server.options())
	gone, goneValue := keepInStore(t, store, freshSession("12345"))
	_, value := keepInStore(t, store, freshSession("12345"))
	mustLoad(t, store, goneValue)
	mustLoad(t, store, value)
	server.kill()
	eventually(t, "the cache is dropped", func() bool { _, err := store.Load(t.Context(), goneValue); return err != nil })
	server.restart()
	server.must("DEL", redis.DefaultRedisPrefix+redis.RedisSession+gone.ID.Hash())
	eventually(t, "it is back", func() bool { found, err := store.Load(t.Context(), value); return err == nil && found.Session != nil })
	if mustLoad(t, store, goneValue) != nil {
		t.Error("a session that is gone was served")
	}
}

// TestVisitorWhoLeavesDoesNotFailOthers: not even the visitor's own command ends, for
// which others may wait.
func TestVisitorWhoLeavesDoesNotFailOthers(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	store := server.opened(t, server.options())
	gone, goAway := context.WithCancel(t.Context())
	goAway()
	if _, err := store.Create(gone, freshSession("12345")); err != nil {
		t.Errorf("the first command, for which the connection was made: %v", err)
	}
}

func TestEveryWordOfTheRedisStoreBecomesItsJSONKey(t *testing.T) {
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

func TestAFaultInTheRedisStoreNamesItsWordAndItsLine(t *testing.T) {
	for block, want := range map[string]string{
		"":                                     "session.store.address: is required: where Redis is, as <host>:<port>, at Caddyfile:9",
		"address":                              "session.store.address: wrong number of arguments, at Caddyfile:10",
		"address redis":                        `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address redis:http":                   `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address :6379":                        `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address redis://h:1":                  `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address a:0":                          `session.store.address: must be <host>:<port> and nothing else, for example 127.0.0.1:6379, at Caddyfile:10`,
		"address a:1 b:2":                      "session.store.address: several addresses need sentinel or cluster, at Caddyfile:10",
		"address a:1\naddress b:1":             "address stands twice, at Caddyfile:11",
		"address a:1\nuser x":                  "unknown word 'user'; did you mean 'username'?, at Caddyfile:11",
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
client_cache off
from_cookies 2h`

// BenchmarkRedisCachedGet is what a request of a session in use costs.
func BenchmarkRedisCachedGet(b *testing.B) {
	server := startRedis(b)
	held := newApartRedisRecords(server.options(), redis.DefaultRedisPrefix)
	b.Cleanup(held.Close)
	name := freshSession("12345").ID.Hash()
	r := &records.Record{Head: session.Head{Revision: 1, Expires: time.Now().Add(time.Hour), Kind: session.RecordLive}, Sealed: strings.Repeat("x", 2000)}
	if ok, err := held.Replace(b.Context(), name, 0, r); !ok || err != nil {
		b.Fatal(ok, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := held.Get(b.Context(), name, false); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func TestAuthIsAnsweredInTimeWhileRedisHangs(t *testing.T) {
	server := startRedis(t)
	s := newSite(t, siteOptions{inTollgate: "session {\n\t\t\tstore redis {\n\t\t\t\taddress " + server.address() +
		"\n\t\t\t\tclient_cache off\n\t\t\t}\n\t\t}\n\t\tforward_auth"})
	b := s.newBrowser().signIn()
	b.Get("/oauth/auth").wantAuth(t, "before", 200, "", testUserID)
	server.freeze()
	b.promptly("/oauth/auth").wantAuth(t, "while Redis hangs", 403, "unavailable", "")
	server.thaw()
	eventually(t, "the question is answered again", func() bool { return b.Get("/oauth/auth").StatusCode == http.StatusOK })
}
