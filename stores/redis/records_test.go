package redis

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// testTimeout is a timeout of clients that no busy machine reaches.
const testTimeout = 30 * time.Second

// optionsOf returns the options of a client for the server.
func optionsOf(server *redistest.Server) Options {
	return Options{Addresses: []string{server.Address()}, ClientCache: true, Timeout: testTimeout}
}

// opened returns the store of one process over Redis.
func opened(t *testing.T, options Options) *records.Tickets {
	t.Helper()
	p := recordstest.Place{Open: func(*testing.T) records.Store { return newApartRecords(options, defaultPrefix) }}
	return p.Store(t)
}

func TestRedisPassesTheStoreSuite(t *testing.T) {
	for _, c := range []struct {
		name        string
		clientCache bool
	}{{"with client cache", true}, {"without client cache", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			recordstest.Suite(t, redisPlace(c.clientCache))
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	recordstest.BenchmarkLoad(b, NewRecords(optionsOf(redistest.Start(b)), "b:"))
}

// newApartRecords returns the records of another process. NewRecords would share the client.
func newApartRecords(options Options, prefix string) *Records {
	client := NewClient(options, 0)
	records := &Records{Client: client, Release: client.Release, Prefix: prefix}
	return records
}

// redisPlace starts a Redis for the suite, configured as in the example. So the suite fails
// if the example's user lacks a permission.
func redisPlace(clientCache bool) func(*testing.T) recordstest.Place {
	return func(t *testing.T) recordstest.Place {
		flags, user, password := exampleRedisFlags(t)
		server := redistest.Start(t, flags...)
		options := optionsOf(server)
		options.ClientCache, options.Username, options.Password = clientCache, user, password
		return recordstest.Place{
			Open: func(t *testing.T) records.Store { return newApartRecords(options, defaultPrefix) },
			Fail: func(*testing.T) { server.Kill() },
			Mend: func(*testing.T) { server.Restart() },
		}
	}
}

var redisConf = regexp.MustCompile("(?s)In `redis.conf`:\n\n```\n(.*?)```")

// exampleRedisFlags are the lines for redis.conf of the example, as flags.
func exampleRedisFlags(t *testing.T) (flags []string, user, password string) {
	t.Helper()
	example, err := os.ReadFile("../../examples/replicas/README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := redisConf.FindStringSubmatch(string(example))
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

func TestCachedRedisReadsFollowChanges(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	here, there := opened(t, optionsOf(server)), opened(t, optionsOf(server))
	s, value := recordstest.Keep(t, here, recordstest.FreshSession("12345"))
	recordstest.MustLoad(t, here, value)
	before := server.Calls("get")
	for range 100 {
		if recordstest.MustLoad(t, here, value) == nil {
			t.Fatal("the session is gone")
		}
	}
	if asked := server.Calls("get") - before; asked != 0 {
		t.Errorf("a cached session was asked for %d times", asked)
	}
	if err := there.End(t.Context(), s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	// Without the report of Redis the cache would have it for redisCacheAge, which is longer.
	recordstest.Eventually(t, "the end is known everywhere", func() bool { return recordstest.MustLoad(t, here, value) == nil })
	// A record that was deleted in Redis is also deleted from the cache.
	_, value = recordstest.Keep(t, here, recordstest.FreshSession("12345"))
	recordstest.MustLoad(t, here, value)
	server.Must("FLUSHALL")
	recordstest.Eventually(t, "a flushed session is gone", func() bool { return recordstest.MustLoad(t, here, value) == nil })
}

func TestEveryLoadReadsFromRedisWithoutClientCache(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	options := optionsOf(server)
	options.ClientCache = false
	store := opened(t, options)
	_, value := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
	before := server.Calls("get")
	for range 10 {
		recordstest.MustLoad(t, store, value)
	}
	if asked := server.Calls("get") - before; asked != 10 {
		t.Errorf("ten requests: got %d reads from Redis, want 10", asked)
	}
	if tracking := server.Must("INFO", "clients"); !strings.Contains(tracking, "tracking_clients:0") {
		t.Errorf("got client tracking, want none:\n%s", tracking)
	}
}

func TestHangingRedisFailsInTimeAndRecovers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	options := optionsOf(server)
	patient := opened(t, options)
	s, value := recordstest.Keep(t, patient, recordstest.FreshSession("12345"))
	options.Timeout = 0 // the one that users have
	store := opened(t, options)
	recordstest.Eventually(t, "the session is cached", func() bool { found, err := store.Load(t.Context(), value); return err == nil && found.Session != nil })
	server.Freeze()
	if _, err := store.Reread(t.Context(), s); err == nil || !strings.Contains(err.Error(), "no response within 1s") {
		t.Errorf("reading: %v", err)
	}
	// The cache is not used any more, because Redis cannot report changes.
	recordstest.Eventually(t, "the cache is dropped", func() bool { _, err := store.Load(t.Context(), value); return err != nil })
	if _, err := store.Create(t.Context(), recordstest.FreshSession("1")); err == nil {
		t.Error("writing went well")
	}
	server.Thaw()
	recordstest.Eventually(t, "the session is back", func() bool { found, err := store.Load(t.Context(), value); return err == nil && found.Session != nil })
}

func TestFullOrReadOnlyRedisFailsWritesAndServesReads(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, c := range []struct {
		fault    string
		commands [2][]string
	}{
		{"OOM", [2][]string{{"CONFIG", "SET", "maxmemory", "1"}, {"CONFIG", "SET", "maxmemory", "0"}}},
		{"READONLY", [2][]string{{"REPLICAOF", "127.0.0.1", "1"}, {"REPLICAOF", "NO", "ONE"}}},
	} {
		store := opened(t, optionsOf(server))
		s, value := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
		server.Must(c.commands[0]...)
		for _, row := range []struct {
			name string
			err  error
		}{
			{"creating", keeps(t, store)},
			{"saving", func() error { _, err := store.Save(t.Context(), s.Renewed(s.Tokens)); return err }()},
			{"being ready", store.Ready(t.Context())},
		} {
			if row.err == nil || !strings.Contains(row.err.Error(), c.fault) {
				t.Errorf("%s: %s: %v", c.fault, row.name, row.err)
			}
		}
		if got, err := store.Reread(t.Context(), s); got == nil || err != nil {
			t.Errorf("%s: reading: %v, %v", c.fault, got, err)
		}
		if recordstest.MustLoad(t, opened(t, optionsOf(server)), value) == nil {
			t.Errorf("%s: a gateway that has not read the session before does not find it", c.fault)
		}
		server.Must(c.commands[1]...)
		recordstest.Eventually(t, "it is ready again", func() bool { return store.Ready(t.Context()) == nil })
		if _, err := store.Save(t.Context(), s.Renewed(s.Tokens)); err != nil || recordstest.MustLoad(t, store, value) == nil {
			t.Errorf("%s: afterwards: %v", c.fault, err)
		}
	}
}

func TestRedisDeletesRecordsAndIndexEntriesWhenTheyExpire(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	store := opened(t, optionsOf(server))
	recordstest.InTime(300*time.Millisecond, func(lifetime time.Duration, left func() bool) {
		store.Lifetime = lifetime
		recordstest.Keep(t, store, recordstest.FreshSession("12345"))
		if keys := server.Must("DBSIZE"); keys != "2" && left() {
			t.Fatalf("%s keys: %s", keys, server.Must("KEYS", "*"))
		}
	})
	recordstest.Eventually(t, "everything is gone", func() bool { return server.Must("DBSIZE") == "0" })

	store.Lifetime = 300 * time.Millisecond
	brief, _ := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
	store.Lifetime = time.Hour
	long, _ := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
	time.Sleep(time.Until(brief.Kept.Expires) + 5*time.Millisecond)
	last, _ := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
	set := defaultPrefix + redisUser + last.Kept.User
	noted := server.Must("ZRANGE", set, "0", "-1")
	if strings.Contains(noted, brief.ID.Hash()) || !strings.Contains(noted, long.ID.Hash()) || !strings.Contains(noted, last.ID.Hash()) {
		t.Errorf("got the index:\n%s\nwant the two records that have not ended", noted)
	}
	if until := server.Must("PEXPIRETIME", set); until != milliseconds(last.Kept.Expires) && until != milliseconds(long.Kept.Expires) {
		t.Errorf("the index expires at %s, want %s", until, milliseconds(last.Kept.Expires))
	}
}

func TestRedisLockHasOneOwnerAndEndsWithItsLease(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	here, there := opened(t, optionsOf(server)).Records, opened(t, optionsOf(server)).Records
	const name, key, lease = "0123", "tollgate:lock:0123", time.Minute
	lost, ok, err := here.TryLock(t.Context(), name, lease)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, ok, err := there.TryLock(t.Context(), name, lease); ok || err != nil {
		t.Fatalf("a second lock: %v, %v", ok, err)
	}
	server.Must("PEXPIRE", key, "10000") // most of the lease is over
	if err := lost.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := server.Must("PTTL", key); len(left) < len("10001") || left <= "10000" {
		t.Errorf("a lease that was renewed ends in %s ms", left)
	}
	server.Must("PEXPIRE", key, "1") // all of it is over
	var held session.Lock
	recordstest.Eventually(t, "the lease ends", func() bool { held, ok, err = there.TryLock(t.Context(), name, time.Minute); return ok && err == nil })
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

// Another program may use the same names for its keys.
func TestRedisValueThatIsNoRecordIsNotReplaced(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	held := opened(t, optionsOf(server)).Records
	next := &records.Record{Head: session.Head{Revision: 1, Expires: time.Now().Add(time.Hour), Kind: session.RecordLive}, Sealed: "x"}
	for _, standing := range []string{"", "something else", "1 0 x", "2 7 x", "1 7", "1 -7 x", " 1 7 x"} {
		server.Must("SET", defaultPrefix+redisSession+"00", standing)
		for _, revision := range []uint64{0, 7} {
			if ok, err := held.Replace(t.Context(), "00", revision, next); ok || err != nil {
				t.Errorf("revision %d in the place of %q: %v, %v", revision, standing, ok, err)
			}
		}
	}
	server.Must("SET", defaultPrefix+redisSession+"00", "1 7 x")
	if ok, err := held.Replace(t.Context(), "00", 7, next); !ok || err != nil {
		t.Errorf("a record: %v, %v", ok, err)
	}
}

func TestRestartOfRedisEmptiesTheClientCache(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	store := opened(t, optionsOf(server))
	gone, goneValue := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
	_, value := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
	recordstest.MustLoad(t, store, goneValue)
	recordstest.MustLoad(t, store, value)
	server.Kill()
	recordstest.Eventually(t, "the cache is dropped", func() bool { _, err := store.Load(t.Context(), goneValue); return err != nil })
	server.Restart()
	server.Must("DEL", defaultPrefix+redisSession+gone.ID.Hash())
	recordstest.Eventually(t, "it is back", func() bool { found, err := store.Load(t.Context(), value); return err == nil && found.Session != nil })
	if recordstest.MustLoad(t, store, goneValue) != nil {
		t.Error("a session that was deleted while Redis was down was served from the cache")
	}
}

// A cancelled request does not cancel its command: other requests may wait for the reply.
func TestCancelledRequestDoesNotFailOthers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	store := opened(t, optionsOf(server))
	gone, goAway := context.WithCancel(t.Context())
	goAway()
	if _, err := store.Create(gone, recordstest.FreshSession("12345")); err != nil {
		t.Errorf("the first command, for which the connection was made: %v", err)
	}
}

// BenchmarkRedisCachedGet measures reading a session that is in the client cache.
func BenchmarkRedisCachedGet(b *testing.B) {
	server := redistest.Start(b)
	held := newApartRecords(optionsOf(server), defaultPrefix)
	b.Cleanup(held.Close)
	name := recordstest.FreshSession("12345").ID.Hash()
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
