package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Kinds of keys, which follow the prefix. Each command uses one key only. So a cluster may
// keep each key on any node.
const (
	redisSession = "session:" // + name: a record
	redisUser    = "user:"    // + user: the names of the user's records, by their expiry
	redisLock    = "lock:"    // + name: the owner of the lock, who may refresh
	redisProbe   = "probe"
)

const (
	// redisCacheAge is how long a record stays in the cache if Redis reports no change.
	redisCacheAge = time.Minute
	// scanCount is how many keys one step of a scan looks at: it takes about a millisecond.
	scanCount = 1000
	// redisProbeAge is how long Redis keeps the probe's key.
	redisProbeAge = time.Minute
)

// Scripts are atomic. To run one twice has the same effect as to run it once: a gateway
// sends a script again if its connection broke before the reply.
var (
	// redisReplace replaces the record that has the revision ARGV[1]. With revision 0 it
	// writes a record that must not exist yet. A value that is no record is not replaced.
	redisReplace = rueidis.NewLuaScript(`
local standing = redis.call('GET', KEYS[1])
if standing == ARGV[2] then return 1 end
if ARGV[1] == '0' then
	if standing then return 0 end
elseif not standing or string.match(standing, '^` + records.RecordFormat + ` (%d+) ') ~= ARGV[1] then
	return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1`)

	// redisIndex adds the record ARGV[1], which ends at ARGV[2], and removes the records
	// that have ended by ARGV[3]. The set lives as long as the record that ends last.
	redisIndex = rueidis.NewLuaScript(`
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], last[2])
return 1`)

	// redisTryLock takes the lock for the owner ARGV[1], for ARGV[2] milliseconds.
	redisTryLock = rueidis.NewLuaScript(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

	redisRenewLock = rueidis.NewLuaScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`)

	redisUnlock = rueidis.NewLuaScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`)
)

// Records implements records.Store in Redis. Its calls end after the client's timeout, and not
// with their context, because other requests may wait for the same reply.
type Records struct {
	Client  *Client
	Release func() // releases Client
	Prefix  string // of the names of keys
}

// NewRecords returns the records in the Redis with these options. Records with equal options
// share a connection.
func NewRecords(options Options, prefix string) *Records {
	client, release := holdRedisClient(options)
	return &Records{client, release, prefix}
}

// Get implements records.Store.
func (r *Records) Get(ctx context.Context, name string, fresh bool) (string, bool, error) {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < r.Client.Options.timeout() {
		return r.getUntil(ctx, name, fresh)
	}
	return r.read(name, fresh)
}

// getUntil returns when ctx ends. The read goes on for the other requests that wait for it.
func (r *Records) getUntil(ctx context.Context, name string, fresh bool) (string, bool, error) {
	type answer struct {
		text string
		ok   bool
		err  error
	}
	done := make(chan answer, 1)
	go func() { // ends with the timeout of the client
		text, ok, err := r.read(name, fresh)
		done <- answer{text, ok, err}
	}()
	select {
	case a := <-done:
		return a.text, a.ok, a.err
	case <-ctx.Done():
		return "", false, fmt.Errorf("reading the session from Redis: %w", ctx.Err())
	}
}

func (r *Records) read(name string, fresh bool) (string, bool, error) {
	result := r.get(name, !fresh)
	if isFull(result.Error()) {
		// A Redis that is full refuses the transaction of a cached read, but not a plain
		// read.
		result = r.get(name, false)
	}
	text, err := result.ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return "", false, nil
	case err != nil:
		return "", false, r.Client.error("reading the session from Redis", err)
	}
	return text, true, nil
}

func (r *Records) get(name string, cached bool) rueidis.RedisResult {
	key := r.Prefix + redisSession + name
	return r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		get := c.B().Get().Key(key)
		if cached {
			return c.DoCache(ctx, get.Cache(), redisCacheAge)
		}
		return c.Do(ctx, get.Build())
	})
}

func isFull(err error) bool {
	if err == nil {
		return false
	}
	answer, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(answer.Error(), "OOM ")
}

// run runs a script on one key, and reports whether it returned 1.
func (r *Records) run(script *rueidis.Lua, key, doing string, args ...string) (bool, error) {
	answer, err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, c, []string{r.Prefix + key}, args)
	}).AsInt64()
	if err != nil {
		return false, r.Client.error(doing, err)
	}
	return answer == 1, nil
}

// Replace implements records.Store.
func (r *Records) Replace(_ context.Context, name string, revision uint64, next *records.Record) (bool, error) {
	return r.run(redisReplace, redisSession+name, "writing to Redis",
		strconv.FormatUint(revision, 10), next.String(), milliseconds(next.Expires))
}

func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// Remove implements records.Store.
func (r *Records) Remove(_ context.Context, name string) error {
	err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Del().Key(r.Prefix+redisSession+name).Build())
	}).Error()
	if err != nil {
		return r.Client.error("deleting from Redis", err)
	}
	return nil
}

// AddToIndex implements records.Store.
func (r *Records) AddToIndex(_ context.Context, user, name string, expires time.Time) error {
	_, err := r.run(redisIndex, redisUser+user, "adding the session to the index in Redis",
		name, milliseconds(expires), milliseconds(time.Now()))
	return err
}

// RemoveFromIndex implements records.Store.
func (r *Records) RemoveFromIndex(_ context.Context, user, name string) error {
	err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Zrem().Key(r.Prefix+redisUser+user).Member(name).Build())
	}).Error()
	if err != nil {
		return r.Client.error("deleting from Redis", err)
	}
	return nil
}

// Index implements records.Store.
func (r *Records) Index(_ context.Context, user string) ([]string, error) {
	names, err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Zrange().Key(r.Prefix+redisUser+user).Min("0").Max("-1").Build())
	}).AsStrSlice()
	if err != nil {
		return nil, r.Client.error("listing sessions in Redis", err)
	}
	return names, nil
}

// Names implements records.Store. It scans every node of a cluster, which takes a while, and
// does not block Redis meanwhile.
func (r *Records) Names(ctx context.Context) ([]string, error) {
	client, err := r.Client.use(ctx)
	if err != nil {
		return nil, r.Client.error("listing sessions in Redis", err)
	}
	found := make(map[string]bool) // a scan may return a key twice, and replicas have the same keys
	prefix := r.Prefix + redisSession
	for _, node := range client.Nodes() {
		if err := scan(ctx, node, r.Client.Options.timeout(), prefix, func(key string) { found[strings.TrimPrefix(key, prefix)] = true }); err != nil {
			return nil, r.Client.error("listing sessions in Redis", err)
		}
	}
	return slices.Collect(maps.Keys(found)), nil
}

// scan calls visit for the keys of a node that begin with prefix. Each step has the timeout.
func scan(ctx context.Context, node rueidis.Client, timeout time.Duration, prefix string, visit func(key string)) error {
	for cursor := uint64(0); ; {
		limited, cancel := context.WithTimeout(ctx, timeout)
		entry, err := node.Do(limited, node.B().Scan().Cursor(cursor).Match(globEscape.Replace(prefix)+"*").Count(scanCount).Build()).AsScanEntry()
		cancel()
		if err != nil {
			return err
		}
		for _, key := range entry.Elements {
			visit(key)
		}
		if cursor = entry.Cursor; cursor == 0 {
			return nil
		}
	}
}

// globEscape escapes what has a meaning in the patterns of Redis.
var globEscape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// TryLock implements records.Store.
func (r *Records) TryLock(_ context.Context, name string, lease time.Duration) (session.Lock, bool, error) {
	lock := &redisLockHeld{r, redisLock + name, rand.Text(), strconv.FormatInt(lease.Milliseconds(), 10)}
	ok, err := r.run(redisTryLock, lock.key, "locking the session in Redis", lock.owner, lock.lease)
	if err != nil || !ok {
		return nil, false, err
	}
	return lock, true, nil
}

// redisLockHeld is a lock: a key that holds its owner, and expires with the lease.
type redisLockHeld struct {
	records    *Records
	key, owner string
	lease      string // in milliseconds
}

var errRedisLockLost = errors.New("the session's lock in Redis was lost")

// Renew implements session.Lock.
func (l *redisLockHeld) Renew(context.Context) error {
	ok, err := l.records.run(redisRenewLock, l.key, "renewing the lock in Redis", l.owner, l.lease)
	if err == nil && !ok {
		return errRedisLockLost
	}
	return err
}

// Release implements session.Lock.
func (l *redisLockHeld) Release(context.Context) error {
	_, err := l.records.run(redisUnlock, l.key, "unlocking the session in Redis", l.owner)
	return err
}

// Ready implements records.Store. It writes a small key, which fails if Redis is a replica,
// full or unreachable.
func (r *Records) Ready(context.Context) error {
	err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Set().Key(r.Prefix+redisProbe).Value("").Px(redisProbeAge).Build())
	}).Error()
	if err != nil {
		return r.Client.error("writing to Redis", err)
	}
	return nil
}

// Hold implements records.Store.
func (r *Records) Hold() (release func()) { return r.Client.Hold() }

// Close implements records.Store.
func (r *Records) Close() { r.Release() }

// Interface guards.
var (
	_ records.Store = (*Records)(nil)
	_ session.Lock  = (*redisLockHeld)(nil)
)
