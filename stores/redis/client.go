package redis

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/rueidis"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/wire"
)

const (
	// redisTimeout bounds every command, and the way to a new connection. A Redis that
	// is well answers in a few milliseconds, even over a bad network; a person should
	// not wait long for a page that says to try again.
	redisTimeout = time.Second
	// redisPause is how long after a failure to connect nobody tries again.
	redisPause = 500 * time.Millisecond
	// redisLinger is how long connections stay open that no configuration uses: requests
	// of the last one may still be under way, and a reload may want them back.
	redisLinger = time.Minute
	// redisTopologyInterval is how often the sentinels are asked for the master, in case
	// their message about a new one was missed.
	redisTopologyInterval = 5 * time.Second
	// maxRedisCache bounds what one connection's cache holds, in bytes. There are up to
	// four connections.
	maxRedisCache = 32 << 20
)

// Options is all that makes one connection to Redis another one.
type Options struct {
	Addresses          []string
	Username, Password string
	database           int
	tls                *tlsIdentity
	sentinel           string
	cluster            bool
	ClientCache        bool
}

// tlsIdentity is a TLS configuration, and a hash of all that it was made from.
type tlsIdentity struct {
	*tls.Config
	identity [sha256.Size]byte
}

// key names the client in the pool. It is a hash, since it has the password in it.
func (o *Options) key() [sha256.Size]byte {
	b := binary.AppendVarint(nil, int64(len(o.Addresses)))
	for _, address := range o.Addresses {
		b = wire.AppendText(b, address)
	}
	for _, text := range []string{o.Username, o.Password, o.sentinel} {
		b = wire.AppendText(b, text)
	}
	b = binary.AppendVarint(b, int64(o.database))
	b = fmt.Appendf(b, "%t %t", o.cluster, o.ClientCache)
	if o.tls != nil {
		b = append(b, o.tls.identity[:]...)
	}
	return sha256.Sum256(b)
}

// redisClients holds the clients in use. A config reload goes on with the connections,
// and with what is cached.
var redisClients = caddy.NewUsagePool()

// Client connects when it is used first: neither `caddy validate` nor the start
// wait for Redis.
type Client struct {
	Options   Options
	Linger    time.Duration
	deadlines redisDeadlines

	connected *flight.Lazy[rueidis.Client]
	ledgers   sync.Map // of *Ledger, by the ledgerKey

	Mu      sync.Mutex // guards what follows
	Holders int
	closed  bool
	open    rueidis.Client // nil before the first connection
}

// NewClient returns a client that is not connected yet, for one holder. linger is how long
// the connection stays open after the last holder has released it.
func NewClient(options Options, linger time.Duration) *Client {
	c := &Client{Options: options, Linger: linger, Holders: 1}
	c.connected = flight.NewLazy(time.Now, redisPause, c.Open)
	return c
}

// holdRedisClient gives the client for these options, and what lets go of it.
func holdRedisClient(options Options) (client *Client, release func()) {
	key := options.key()
	value, _, _ := redisClients.LoadOrNew(key, func() (caddy.Destructor, error) { // which never fails
		return NewClient(options, redisLinger), nil
	})
	return value.(*Client), sync.OnceFunc(func() { _, _ = redisClients.Delete(key) })
}

// Destruct implements caddy.Destructor: no configuration uses the client any more.
func (c *Client) Destruct() error {
	c.Release()
	return nil
}

// Hold keeps the client open until it is released.
func (c *Client) Hold() (release func()) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.Holders++
	return sync.OnceFunc(c.Release)
}

func (c *Client) Release() {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if c.Holders--; c.Holders == 0 {
		time.AfterFunc(c.Linger, c.closeUnlessHeld)
	}
}

func (c *Client) closeUnlessHeld() {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if c.Holders > 0 || c.closed {
		return
	}
	c.closed = true
	if c.open != nil {
		c.open.Close()
	}
}

// use gives the connected client.
func (c *Client) use(ctx context.Context) (rueidis.Client, error) { return c.connected.Get(ctx) }

// Open connects, unless the client was closed meanwhile.
func (c *Client) Open(context.Context) (rueidis.Client, error) {
	connected, err := c.Options.connect()
	if err != nil {
		return nil, err
	}
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if c.closed {
		connected.Close()
		return nil, rueidis.ErrClosing
	}
	c.open = connected
	return connected, nil
}

// connect connects. Sentinels are asked with the credentials of Redis, and then
// without, since many have none configured. Of several sentinels the last one tells
// the reason, which therefore does not say whether that is it.
func (o *Options) connect() (rueidis.Client, error) {
	client, err := newRueidis(o.client(true))
	if err == nil || o.sentinel == "" || o.Password == "" {
		return client, err
	}
	client, errWithout := newRueidis(o.client(false))
	if answer, ok := rueidis.IsRedisErr(errWithout); ok && strings.HasPrefix(answer.Error(), "NOAUTH") {
		return nil, err // the sentinels do want a password
	}
	return client, errWithout
}

// newRueidis closes what comes along with an error.
func newRueidis(option rueidis.ClientOption) (rueidis.Client, error) {
	client, err := rueidis.NewClient(option)
	if err != nil && client != nil {
		client.Close()
	}
	if err != nil {
		return nil, err
	}
	return client, nil
}

func (o *Options) client(sentinelsKnowUs bool) rueidis.ClientOption {
	dialer := net.Dialer{Timeout: redisTimeout, KeepAlive: redisTimeout / 2}
	option := rueidis.ClientOption{
		InitAddress: o.Addresses,
		Username:    o.Username,
		Password:    o.Password,
		SelectDB:    o.database,
		ClientName:  "tollgate",
		// Naming the library, too, would take another permission.
		ClientSetInfo: rueidis.DisableClientSetInfo,
		Dialer:        dialer,
		// A connection on which nothing came for two of the dialer's KeepAlive is asked
		// for a sign of life, and is dead when none comes within this. What was cached on
		// it goes with it.
		ConnWriteTimeout:  redisTimeout,
		CacheSizeEachConn: maxRedisCache,
		DisableCache:      !o.ClientCache,
		// The library would try again until the time is up.
		DisableRetry: true,
		// A connection that is always read from is known to be closed at once, and not by
		// the next command.
		AlwaysPipelining:  true,
		ForceSingleClient: !o.cluster,
	}
	if o.tls != nil {
		option.TLSConfig = o.tls.Config
	}
	if o.sentinel != "" {
		option.Sentinel = rueidis.SentinelOption{
			MasterSet:               o.sentinel,
			Dialer:                  dialer,
			TLSConfig:               option.TLSConfig,
			ClientName:              option.ClientName,
			TopologyRefreshInterval: redisTopologyInterval,
		}
		if sentinelsKnowUs {
			option.Sentinel.Username, option.Sentinel.Password = o.Username, o.Password
		}
	}
	return option
}

// do sends a command, and once more when the connection broke under it: everything
// that is sent here may arrive twice. An idle connection that Redis or a firewall has
// closed costs nobody an error.
func (c *Client) do(send func(context.Context, rueidis.Client) rueidis.RedisResult) rueidis.RedisResult {
	ctx := c.deadlines.context()
	client, err := c.use(ctx)
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	result := send(ctx, client)
	if isBrokenConnection(result.NonRedisError()) {
		result = send(ctx, client)
	}
	return result
}

func isBrokenConnection(err error) bool {
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	dialing, ok := errors.AsType[*net.OpError](err)
	return !ok || dialing.Op != "dial"
}

// redisDeadlines hands out contexts that end after redisTimeout, or up to a tenth of it
// later. Everybody who asks within that tenth gets the same one: to make one costs more
// than to read a session that is cached. None of them ends with a request, since
// others may wait for the same answer.
type redisDeadlines struct{ current atomic.Pointer[redisDeadline] }

type redisDeadline struct {
	context.Context
	cancel context.CancelFunc // nobody does: its time ends it
	begun  time.Time
}

func (d *redisDeadlines) context() context.Context {
	const tenth = redisTimeout / 10
	now := time.Now()
	if current := d.current.Load(); current != nil && flight.Within(now.Sub(current.begun), tenth) {
		return current
	}
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout+tenth) //nolint:gosec // G118: its time ends it
	next := &redisDeadline{ctx, cancel, now}
	d.current.Store(next)
	return next
}

// redisError says what went wrong, and keeps to itself what was sent: an old Redis
// repeats the arguments of a command that it does not know, the password among them.
func redisError(doing string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: no response within %v", doing, redisTimeout)
	}
	if errors.Is(err, rueidis.ErrNoCache) {
		return fmt.Errorf("%s: this Redis does not support client-side caching: set `client_cache off`", doing)
	}
	if answer, ok := rueidis.IsRedisErr(err); ok {
		text, _, _ := strings.Cut(answer.Error(), ", with args")
		return fmt.Errorf("%s: redis says: %s", doing, text)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
