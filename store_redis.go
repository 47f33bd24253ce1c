package tollgate

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(RedisStore{})
}

// defaultRedisPrefix is what the names of keys begin with.
const defaultRedisPrefix = "tollgate:"

// RedisStore keeps sessions in Redis 6.2 or newer, or in Valkey, where several
// gateways share them: whoever signs out at one is signed out at all of them at once,
// and a session's tokens are refreshed by one of them. What is often read is cached in
// the process, and Redis says when it changes.
//
// The gateways need the same `secret`. The gateway starts while Redis is down; until
// Redis answers, requests that need a session get 503.
type RedisStore struct {
	// Where Redis is, as `<host>:<port>`; with `sentinel` the sentinels, with `cluster`
	// some of the nodes. Required.
	Address []string `json:"address,omitempty"`

	// The ACL user. Needs `password`. Default: Redis's user `default`.
	Username string `json:"username,omitempty"`

	// The password, for sentinels, too, where they want one. Default: none.
	Password string `json:"password,omitempty"`

	// The number of the database. Default: 0.
	Database int `json:"database,omitempty"`

	// Speaks TLS to Redis, and to the sentinels. As a bare word: with the system's
	// roots. Default: off.
	TLS *RedisTLS `json:"tls,omitempty"`

	// The name under which the sentinels know the master. Default: none, `address` is
	// Redis itself.
	Sentinel string `json:"sentinel,omitempty"`

	// Whether this is a Redis Cluster. Default: false.
	Cluster bool `json:"cluster,omitempty"`

	// What the name of every key begins with. Sites that share a Redis may share it,
	// too: their sessions do not open each other. Default: `tollgate:`.
	Prefix string `json:"prefix,omitempty"`

	// Whether sessions are cached in the process, with Redis telling it what changes
	// (server-assisted client-side caching). Turn it off for a proxy or a service that
	// cannot do that; every request then asks Redis. Default: true.
	ClientCache *bool `json:"client_cache,omitempty"`

	// For how long after the start sessions are taken over that stood in cookies, as with
	// `store storage`. Default: off.
	FromCookies caddy.Duration `json:"from_cookies,omitempty"`

	options redisOptions
	prefix  string
	logger  *zap.Logger
}

// RedisTLS says whom to trust, and who we are.
type RedisTLS struct {
	// A file with the certificates, as PEM, of who may have signed Redis's certificate.
	// Default: the system's roots.
	CA string `json:"ca,omitempty"`

	// A file with this client's own certificate, as PEM. Needs `key`. Default: none.
	Certificate string `json:"certificate,omitempty"`

	// A file with the private key of `certificate`, as PEM. Default: none.
	Key string `json:"key,omitempty"`

	// The name that Redis's certificate has to be for. Default: the host in `address`.
	ServerName string `json:"server_name,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (RedisStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tollgate.stores.redis",
		New: func() caddy.Module { return new(RedisStore) },
	}
}

// storeSetting is the setting that a store stands in.
const storeSetting = "session.store"

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. One word per setting,
// the same word as the JSON key.
//
//	store redis {
//		address      <host:port...>
//		username     <name>
//		password     <password>
//		database     <n>
//		tls {
//			ca          <file>
//			certificate <file>
//			key         <file>
//			server_name <name>
//		}
//		sentinel     <master>
//		cluster
//		prefix       <prefix>
//		client_cache on|off
//		from_cookies off|<duration>
//	}
func (s *RedisStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	p := newBlockParser(d, "store redis", storeSetting)
	if p.NextArg() {
		return p.ArgErr()
	}
	err := p.block(storeSetting, words{
		"address":      p.list(&s.Address),
		"username":     p.text(&s.Username),
		"password":     p.text(&s.Password),
		"database":     p.number(&s.Database),
		"tls":          redisTLSWords(p, &s.TLS),
		"sentinel":     p.text(&s.Sentinel),
		"cluster":      p.bare(&s.Cluster),
		"prefix":       p.text(&s.Prefix),
		"client_cache": p.onOffDefault(&s.ClientCache),
		"from_cookies": p.durationOrOff(&s.FromCookies),
	})
	if err != nil {
		return err
	}
	return p.tryOut(func(repl *caddy.Replacer) error {
		_, err := s.resolve(repl)
		return err
	})
}

func redisTLSWords(p *blockParser, target **RedisTLS) word {
	return word{once: true, parse: func(path string) error {
		t := new(RedisTLS)
		*target = t
		if p.NextArg() {
			return p.wrongArgs(path)
		}
		return p.block(path, words{
			"ca":          p.text(&t.CA),
			"certificate": p.text(&t.Certificate),
			"key":         p.text(&t.Key),
			"server_name": p.text(&t.ServerName),
		})
	}}
}

// Provision reads the settings and the files of TLS. It asks no network.
func (s *RedisStore) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	resolved, err := s.resolve(caddy.NewReplacer())
	if err != nil {
		return err
	}
	s.prefix = resolved.prefix
	s.options = resolved.redisOptions
	if resolved.tls != nil {
		s.options.tls, err = resolved.tls.load()
	}
	return withoutSecrets(err, resolved.read)
}

// redisSettings are the settings with their placeholders read.
type redisSettings struct {
	redisOptions
	prefix string
	tls    *redisTLSFiles
	read   map[string]string // see resolver
}

// resolve reads the settings, but for the files that TLS names.
func (s *RedisStore) resolve(repl *caddy.Replacer) (*redisSettings, error) {
	r := &resolver{repl: repl}
	setting := func(name string) string { return storeSetting + "." + name }
	resolveFromCookies(r, s.FromCookies)
	resolved := &redisSettings{
		redisOptions: redisOptions{
			username:    r.text(setting("username"), s.Username, ""),
			password:    r.text(setting("password"), s.Password, ""),
			database:    s.Database,
			sentinel:    r.text(setting("sentinel"), s.Sentinel, ""),
			cluster:     s.Cluster,
			clientCache: s.ClientCache == nil || *s.ClientCache,
		},
		prefix: r.text(setting("prefix"), s.Prefix, defaultRedisPrefix),
		tls:    s.TLS.resolve(r, setting("tls")),
	}
	for _, raw := range s.Address {
		resolved.addresses = append(resolved.addresses, r.address(setting("address"), raw))
	}
	switch {
	case len(s.Address) == 0:
		r.fail(setting("address"), "is required: where Redis is, as <host>:<port>")
	case s.Cluster && s.Sentinel != "":
		r.fail(setting("cluster"), "contradicts sentinel: a cluster has no sentinels")
	case s.Cluster && s.Database != 0:
		r.fail(setting("database"), "contradicts cluster, which has database 0 only")
	case len(s.Address) > 1 && !s.Cluster && s.Sentinel == "":
		r.fail(setting("address"), "several addresses need sentinel or cluster")
	case s.Username != "" && s.Password == "":
		r.fail(setting("username"), "needs password")
	case s.Database < 0:
		r.fail(setting("database"), "must not be negative")
	case strings.ContainsAny(resolved.prefix, "{} \r\n"):
		// Braces would put all keys of a cluster on one node.
		r.check(setting("prefix"), s.Prefix, errors.New("must have neither braces nor white space"))
	}
	if r.err != nil {
		return nil, r.err
	}
	resolved.read = r.read
	return resolved, nil
}

// UnmarshalJSON is Caddy's own strict reading, with an error that shows no secret.
func (s *RedisStore) UnmarshalJSON(text []byte) error {
	type plain RedisStore
	return withoutSecrets(caddy.StrictUnmarshalJSON(text, (*plain)(s)), nil)
}

// address gives a host and a port.
func (r *resolver) address(setting, raw string) string {
	text := r.text(setting, raw, "")
	if r.err != nil {
		return ""
	}
	host, port, err := net.SplitHostPort(text)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" || portErr != nil || number == 0 {
		r.check(setting, raw, fmt.Errorf("%q is not <host>:<port>", text))
	}
	return text
}

// redisTLSFiles are the settings of TLS with their placeholders read.
type redisTLSFiles struct{ ca, certificate, key, serverName string }

func (t *RedisTLS) resolve(r *resolver, path string) *redisTLSFiles {
	if t == nil {
		return nil
	}
	if (t.Certificate == "") != (t.Key == "") {
		r.fail(path, "certificate and key need each other")
	}
	return &redisTLSFiles{
		ca:          r.text(path+".ca", t.CA, ""),
		certificate: r.text(path+".certificate", t.Certificate, ""),
		key:         r.text(path+".key", t.Key, ""),
		serverName:  r.text(path+".server_name", t.ServerName, ""),
	}
}

// load reads the files.
func (f *redisTLSFiles) load() (*redisTLS, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	identity := appendText(nil, f.serverName)
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, badSetting(storeSetting+".tls.ca", "%w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, badSetting(storeSetting+".tls.ca", "%s has no certificate in it", f.ca)
		}
		identity = appendText(identity, string(pem))
	}
	if f.certificate != "" {
		certificate, err := tls.LoadX509KeyPair(f.certificate, f.key)
		if err != nil {
			return nil, badSetting(storeSetting+".tls", "reading certificate and key: %w", err)
		}
		config.Certificates = []tls.Certificate{certificate}
		identity = appendText(identity, string(certificate.Leaf.Raw))
	}
	return &redisTLS{config, sha256.Sum256(identity)}, nil
}

// connection gives what the store was provisioned with: how to connect, and what the name
// of every key begins with.
func (s *RedisStore) connection() (redisOptions, string) { return s.options, s.prefix }

// open implements storeModule.
func (s *RedisStore) open(env storeEnv) sessionStore {
	if !env.secretGiven {
		s.logger.Warn("store redis without secret: gateways that do not share Caddy's storage " +
			"make a secret each, and do not know each other's sessions; give all of them the same secret")
	}
	return newTicketStore(env, newRedisRecords(s.connection()), env.takeover(time.Duration(s.FromCookies)))
}

// Interface guards.
var (
	_ caddy.Module          = (*RedisStore)(nil)
	_ caddy.Provisioner     = (*RedisStore)(nil)
	_ caddyfile.Unmarshaler = (*RedisStore)(nil)
	_ storeModule           = (*RedisStore)(nil)
)
