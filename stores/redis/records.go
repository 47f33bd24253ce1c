package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Kinds of keys, behind the prefix. All that one command touches is one key, so that
// it does not matter to which node of a cluster that belongs.
const (
	redisSession = "session:" // + name: a record
	redisUser    = "user:"    // + user: the names of the user's records, by their expiry
	redisLock    = "lock:"    // + name: who refreshes
	redisProbe   = "probe"
)

const (
	// redisCacheAge is how long a record is cached that Redis says nothing about.
	redisCacheAge = time.Minute
	// redisProbeAge is how long the probe's key stays.
	redisProbeAge = time.Minute
)

// Scripts are atomic. Each does no more when it is sent a second time, by a gateway
// whose connection broke before the answer.
var (
	// redisReplace writes a record in the place of the revision ARGV[1], or of nothing.
	// What is no record has no revision, and stays.
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

	// redisNote adds the record ARGV[1], which ends at ARGV[2], and drops what has ended
	// by ARGV[3]. The set lives as long as the record that ends last.
	redisNote = rueidis.NewLuaScript(`
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

// Records keeps records in Redis. Its calls end when redisTimeout is over, and
// not with their context: what one request waits for, others may wait for, too.
type Records struct {
	Client  *Client
	Release func()
	Prefix  string
}

func NewRecords(options Options, prefix string) *Records {
	client, release := holdRedisClient(options)
	return &Records{client, release, prefix}
}

func (r *Records) Get(ctx context.Context, name string, fresh bool) (string, bool, error) {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < redisTimeout {
		return r.getUntil(ctx, name, fresh)
	}
	return r.read(name, fresh)
}

// getUntil leaves an answer that comes too late to whoever else waits for it.
func (r *Records) getUntil(ctx context.Context, name string, fresh bool) (string, bool, error) {
	type answer struct {
		text string
		ok   bool
		err  error
	}
	done := make(chan answer, 1)
	go func() { // ends with redisTimeout
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
	result := r.ask(name, !fresh)
	if isFull(result.Error()) {
		// A Redis that is full refuses the transaction in which what is cached is read,
		// and not the plain read.
		result = r.ask(name, false)
	}
	text, err := result.ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return "", false, nil
	case err != nil:
		return "", false, redisError("reading the session from Redis", err)
	}
	return text, true, nil
}

func (r *Records) ask(name string, cached bool) rueidis.RedisResult {
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

// run runs a script on one key, and reports whether it answered 1.
func (r *Records) run(script *rueidis.Lua, key, doing string, args ...string) (bool, error) {
	answer, err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, c, []string{r.Prefix + key}, args)
	}).AsInt64()
	if err != nil {
		return false, redisError(doing, err)
	}
	return answer == 1, nil
}

func (r *Records) Replace(_ context.Context, name string, revision uint64, next *records.Record) (bool, error) {
	return r.run(redisReplace, redisSession+name, "writing to Redis",
		strconv.FormatUint(revision, 10), next.String(), milliseconds(next.Expires))
}

func milliseconds(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func (r *Records) Remove(_ context.Context, name string) error {
	err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Del().Key(r.Prefix+redisSession+name).Build())
	}).Error()
	if err != nil {
		return redisError("deleting from Redis", err)
	}
	return nil
}

func (r *Records) AddToIndex(_ context.Context, user, name string, expires time.Time) error {
	_, err := r.run(redisNote, redisUser+user, "noting the session in Redis",
		name, milliseconds(expires), milliseconds(time.Now()))
	return err
}

func (r *Records) RemoveFromIndex(_ context.Context, user, name string) error {
	err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Zrem().Key(r.Prefix+redisUser+user).Member(name).Build())
	}).Error()
	if err != nil {
		return redisError("deleting from Redis", err)
	}
	return nil
}

func (r *Records) Index(_ context.Context, user string) ([]string, error) {
	names, err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Zrange().Key(r.Prefix+redisUser+user).Min("0").Max("-1").Build())
	}).AsStrSlice()
	if err != nil {
		return nil, redisError("listing sessions in Redis", err)
	}
	return names, nil
}

func (r *Records) TryLock(_ context.Context, name string, lease time.Duration) (session.Lock, bool, error) {
	lock := &redisLockHeld{r, redisLock + name, rand.Text(), strconv.FormatInt(lease.Milliseconds(), 10)}
	ok, err := r.run(redisTryLock, lock.key, "locking the session in Redis", lock.owner, lock.lease)
	if err != nil || !ok {
		return nil, false, err
	}
	return lock, true, nil
}

// redisLockHeld is a key that names who holds the lock, and ends with the lease.
type redisLockHeld struct {
	records    *Records
	key, owner string
	lease      string // in milliseconds
}

var errRedisLockLost = errors.New("the session's lock in Redis was lost")

func (l *redisLockHeld) Renew(context.Context) error {
	ok, err := l.records.run(redisRenewLock, l.key, "renewing the lock in Redis", l.owner, l.lease)
	if err == nil && !ok {
		return errRedisLockLost
	}
	return err
}

func (l *redisLockHeld) Release(context.Context) error {
	_, err := l.records.run(redisUnlock, l.key, "unlocking the session in Redis", l.owner)
	return err
}

// Ready writes a little: a replica, a Redis that is full and one that is not there
// refuse that.
func (r *Records) Ready(context.Context) error {
	err := r.Client.do(func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Set().Key(r.Prefix+redisProbe).Value("").Px(redisProbeAge).Build())
	}).Error()
	if err != nil {
		return redisError("writing to Redis", err)
	}
	return nil
}

func (r *Records) Hold() (release func()) { return r.Client.Hold() }

func (r *Records) Close() { r.Release() }

// Interface guards.
var (
	_ records.Store = (*Records)(nil)
	_ session.Lock  = (*redisLockHeld)(nil)
)
