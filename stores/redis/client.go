package redis

import (
	"cmp"
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
	// redisTimeout is the usual timeout of every command and of opening a connection. A
	// healthy Redis responds in a few milliseconds, even over a bad network. A user should
	// not wait long for a page that says to try again.
	redisTimeout = time.Second
	// redisPause is the pause after a failure to connect. Until it is over, commands fail
	// at once.
	redisPause = 500 * time.Millisecond
	// redisLinger is how long a connection stays open after the last configuration that
	// uses it. Requests of that configuration may still run, and a reload may need the
	// connection again.
	redisLinger = time.Minute
	// redisRetire is how many timeouts connections with a previous password stay open for the
	// commands that were sent on them. It is longer than any command takes.
	redisRetire = 10
	// redisTopologyInterval is how often the sentinels are queried for the master, in case
	// their message about a new master was missed.
	redisTopologyInterval = 5 * time.Second
	// maxRedisCache is the maximum size of one connection's cache in bytes. There are up to
	// four connections.
	maxRedisCache = 32 << 20
)

// Options identifies a connection to Redis. Configurations with equal options share one
// client.
type Options struct {
	Addresses          []string
	Username, Password string
	// PasswordFrom is the text of the setting if the password comes from a file: the file may
	// change while the client is in use. Otherwise it is empty.
	PasswordFrom string
	database     int
	tls          *tlsIdentity
	sentinel     string
	cluster      bool
	ClientCache  bool
	// Timeout is the timeout of every command and of opening a connection. 0: as usual.
	Timeout time.Duration
}

func (o *Options) timeout() time.Duration { return cmp.Or(o.Timeout, redisTimeout) }

// tlsIdentity is a TLS configuration, and a hash of everything that it was made from.
type tlsIdentity struct {
	*tls.Config
	identity [sha256.Size]byte
}

// key returns the key of the client in the pool. It is a hash, because the password is part of it.
// For a password from a file only the file's name is part of it, so that sites with the same
// file still share a client after the file has changed.
func (o *Options) key() [sha256.Size]byte {
	password := "=" + o.Password
	if o.PasswordFrom != "" {
		password = "from " + o.PasswordFrom
	}
	b := binary.AppendVarint(nil, int64(len(o.Addresses)))
	for _, address := range o.Addresses {
		b = wire.AppendText(b, address)
	}
	for _, text := range []string{o.Username, password, o.sentinel} {
		b = wire.AppendText(b, text)
	}
	b = binary.AppendVarint(b, int64(o.database))
	b = fmt.Appendf(b, "%t %t %d", o.cluster, o.ClientCache, o.timeout())
	if o.tls != nil {
		b = append(b, o.tls.identity[:]...)
	}
	return sha256.Sum256(b)
}

// redisClients holds the clients in use. The connections and their caches survive a reload
// of the configuration.
var redisClients = caddy.NewUsagePool()

// Client is a client that connects when it is first used. So `caddy validate` and the start
// do not wait for Redis.
type Client struct {
	Options   Options
	linger    time.Duration
	deadlines redisDeadlines

	connected atomic.Pointer[flight.Lazy[rueidis.Client]]
	ledgers   sync.Map // of *Ledger, by the ledgerKey

	// changing is held while the password is replaced. password is the one in use.
	changing sync.Mutex
	password string

	mu      sync.Mutex // guards what follows
	holders int
	closed  bool
	open    rueidis.Client // nil before the first connection
}

// NewClient returns a client that is not connected yet, for one holder. linger is how long
// the connection stays open after the last holder has released it.
func NewClient(options Options, linger time.Duration) *Client {
	c := &Client{Options: options, linger: linger, holders: 1, password: options.Password}
	c.deadlines.timeout = options.timeout()
	c.connected.Store(flight.NewLazy(time.Now, redisPause, c.Open))
	return c
}

// holdRedisClient returns the client for these options, which stays open until release is
// called.
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
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holders++
	return sync.OnceFunc(c.Release)
}

// Release ends one hold. The connection closes if no hold is left after linger.
func (c *Client) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders--; c.holders == 0 {
		time.AfterFunc(c.linger, c.closeUnlessHeld)
	}
}

func (c *Client) closeUnlessHeld() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders > 0 || c.closed {
		return
	}
	c.closed = true
	if c.open != nil {
		c.open.Close()
	}
}

// use returns the connected client.
func (c *Client) use(ctx context.Context) (rueidis.Client, error) {
	return c.connected.Load().Get(ctx)
}

// SetPassword connects with another password, and from then on uses the new connections
// alone. If Redis or the sentinels do not accept the password, or cannot be reached, it
// returns an error and changes nothing: connections that are open stay usable after a change
// of the password in Redis. It reports whether the password has changed.
func (c *Client) SetPassword(password string) (changed bool, err error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	if password == c.password {
		return false, nil
	}
	options := c.Options
	options.Password = password
	next, err := options.connect()
	if err != nil {
		return false, c.error("connecting to Redis with the new password", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		next.Close()
		return false, rueidis.ErrClosing
	}
	if previous := c.open; previous != nil {
		time.AfterFunc(redisRetire*c.Options.timeout(), previous.Close)
	}
	c.open, c.password = next, password
	c.connected.Store(flight.Obtained(next))
	return true, nil
}

// Open connects. It returns an error if the client was closed meanwhile.
func (c *Client) Open(context.Context) (rueidis.Client, error) {
	connected, err := c.Options.connect()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		connected.Close()
		return nil, rueidis.ErrClosing
	}
	if c.open != nil { // SetPassword was faster
		connected.Close()
		return c.open, nil
	}
	c.open = connected
	return connected, nil
}

// connect connects. It first sends the credentials of Redis to the sentinels. If that
// fails, it tries again without credentials, because many sentinels have no password. The
// error of the first attempt does not say whether credentials were the reason: it comes from
// the last of several sentinels.
func (o *Options) connect() (rueidis.Client, error) {
	client, err := newRueidis(o.client(true))
	if err == nil || o.sentinel == "" || o.Password == "" {
		return client, err
	}
	client, errWithout := newRueidis(o.client(false))
	if answer, ok := rueidis.IsRedisErr(errWithout); ok && strings.HasPrefix(answer.Error(), "NOAUTH") {
		return nil, err // the sentinels do require a password
	}
	return client, errWithout
}

// newRueidis returns a client. If the library returns a client together with an error,
// newRueidis closes it.
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
	timeout := o.timeout()
	dialer := net.Dialer{Timeout: timeout, KeepAlive: timeout / 2}
	option := rueidis.ClientOption{
		InitAddress: o.Addresses,
		Username:    o.Username,
		Password:    o.Password,
		SelectDB:    o.database,
		ClientName:  "tollgate",
		// To send the name of the library, too, would need another permission.
		ClientSetInfo: rueidis.DisableClientSetInfo,
		Dialer:        dialer,
		// If nothing arrives on a connection for twice the dialer's KeepAlive, the library
		// sends a ping. The connection is closed, and its cache is dropped, if no reply
		// arrives within this time.
		ConnWriteTimeout:  timeout,
		CacheSizeEachConn: maxRedisCache,
		DisableCache:      !o.ClientCache,
		// With retries the library would try again until the timeout.
		DisableRetry: true,
		// A pipelining connection is read all the time. So we notice at once that it was
		// closed, and not only with the next command.
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

// do sends a command, and sends it again if the connection broke. So an idle connection that
// Redis or a firewall has closed causes no error. All commands that are sent here may arrive
// twice.
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

// redisDeadlines returns contexts that end after timeout, or up to a tenth of it
// later. All callers within that tenth share one context, because making a context costs
// more than reading a cached session. A context does not end with a request: other requests
// may wait for the same reply.
type redisDeadlines struct {
	timeout time.Duration
	current atomic.Pointer[redisDeadline]
}

type redisDeadline struct {
	context.Context
	cancel context.CancelFunc // is not called: the context ends with its timeout
	begun  time.Time
}

func (d *redisDeadlines) context() context.Context {
	tenth := d.timeout / 10
	now := time.Now()
	if current := d.current.Load(); current != nil && flight.Within(now.Sub(current.begun), tenth) {
		return current
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout+tenth) //nolint:gosec // G118: it ends with its timeout
	next := &redisDeadline{ctx, cancel, now}
	d.current.Store(next)
	return next
}

// error describes an error of Redis without the arguments of the command. An old Redis
// repeats the arguments of an unknown command, which may include the password.
func (c *Client) error(doing string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: no response within %v", doing, c.Options.timeout())
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
