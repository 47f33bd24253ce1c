// Package redis keeps sessions in Redis or Valkey, where several gateways share them.
//
// Begin with Store for the settings, with records.go for the commands that are sent, and
// with client.go for the connection.
package redis

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/secretfiles"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/wire"
)

func init() {
	caddy.RegisterModule(Store{})
}

// defaultPrefix is the default of the setting prefix.
const defaultPrefix = "tollgate:"

// passwordSetting is the setting that a file may change while the gateway runs.
const passwordSetting = config.StoreSetting + ".password"

// Store keeps sessions in Redis 6.2 or newer, or in Valkey. Several gateways can share
// them: a user who signs out at one gateway is signed out at all of them at once, and only
// one gateway refreshes the tokens of a session. Sessions in use are cached in the process,
// and Redis reports when they change.
//
// The gateways need the same `secret`. The gateway starts even if Redis is down. Until
// Redis responds, requests that need a session get 503.
type Store struct {
	// The address of Redis, as `<host>:<port>`. With `sentinel`: the addresses of the
	// sentinels. With `cluster`: the addresses of some of the nodes. Required.
	Address []string `json:"address,omitempty"`

	// The ACL user. Needs `password`. Default: Redis's user `default`.
	Username string `json:"username,omitempty"`

	// The password for Redis, and for the sentinels if they require one. From a file
	// (`{file./path}`) it is read again when the file changes: see docs/secrets.md.
	// Default: none.
	Password string `json:"password,omitempty"`

	// The number of the database. Default: 0.
	Database int `json:"database,omitempty"`

	// Uses TLS to Redis and to the sentinels. Without a block, the system's roots verify the
	// certificate. Default: off.
	TLS *TLS `json:"tls,omitempty"`

	// The name of the master at the sentinels. Default: none, which means that `address` is
	// Redis itself.
	Sentinel string `json:"sentinel,omitempty"`

	// Whether this is a Redis Cluster. Default: false.
	Cluster bool `json:"cluster,omitempty"`

	// The beginning of the name of every key. Sites that share a Redis may use the same
	// prefix: a session of one site does not open at another. Default: `tollgate:`.
	Prefix string `json:"prefix,omitempty"`

	// Whether sessions are cached in the process, and Redis reports changes (server-assisted
	// client-side caching). Turn it off if a proxy or a service does not support that. Every
	// request then reads from Redis. Default: true.
	ClientCache *bool `json:"client_cache,omitempty"`

	// How long after the start sessions in cookies are moved to the store, as with
	// `store storage`. Default: off.
	FromCookies caddy.Duration `json:"from_cookies,omitempty"`

	options Options
	prefix  string
	logger  *zap.Logger
}

// TLS holds the certificates for connections to Redis.
type TLS struct {
	// A PEM file with the certificates of the authorities that may have signed Redis's
	// certificate. Default: the system's roots.
	CA string `json:"ca,omitempty"`

	// A PEM file with the certificate of this client. Needs `key`. Default: none.
	Certificate string `json:"certificate,omitempty"`

	// A PEM file with the private key of `certificate`. Default: none.
	Key string `json:"key,omitempty"`

	// The name that Redis's certificate must be valid for. Default: the host in `address`.
	ServerName string `json:"server_name,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tollgate.stores.redis",
		New: func() caddy.Module { return new(Store) },
	}
}

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
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	p := config.NewParser(d, "store redis", config.StoreSetting)
	if p.NextArg() {
		return p.ArgErr()
	}
	err := p.Block(config.StoreSetting, config.Words{
		"address":      p.List(&s.Address),
		"username":     p.Text(&s.Username),
		"password":     p.Text(&s.Password),
		"database":     p.Number(&s.Database),
		"tls":          redisTLSWords(p, &s.TLS),
		"sentinel":     p.Text(&s.Sentinel),
		"cluster":      p.Bare(&s.Cluster),
		"prefix":       p.Text(&s.Prefix),
		"client_cache": p.OnOffDefault(&s.ClientCache),
		"from_cookies": p.DurationOrOff(&s.FromCookies),
	})
	if err != nil {
		return err
	}
	return p.TryOut(func(repl *caddy.Replacer) error {
		_, err := s.resolve(repl)
		return err
	})
}

func redisTLSWords(p *config.Parser, target **TLS) config.Word {
	return config.Word{Once: true, Parse: func(path string) error {
		t := new(TLS)
		*target = t
		if p.NextArg() {
			return p.WrongArgs(path)
		}
		return p.Block(path, config.Words{
			"ca":          p.Text(&t.CA),
			"certificate": p.Text(&t.Certificate),
			"key":         p.Text(&t.Key),
			"server_name": p.Text(&t.ServerName),
		})
	}}
}

// Provision reads the settings and the TLS files. It makes no network requests.
func (s *Store) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	resolved, err := s.resolve(caddy.NewReplacer())
	if err != nil {
		return err
	}
	s.prefix = resolved.prefix
	s.options = resolved.Options
	if len(config.FilesIn(s.Password)) > 0 {
		s.options.PasswordFrom = s.Password
	}
	if resolved.tls != nil {
		s.options.tls, err = resolved.tls.Load()
	}
	return config.WithoutSecrets(err, resolved.read)
}

// redisSettings are the settings with their placeholders replaced.
type redisSettings struct {
	Options
	prefix string
	tls    *redisTLSFiles
	read   map[string]string // see config.Resolver
}

// resolve reads the settings. It does not read the TLS files.
func (s *Store) resolve(repl *caddy.Replacer) (*redisSettings, error) {
	r := &config.Resolver{Repl: repl}
	setting := func(name string) string { return config.StoreSetting + "." + name }
	config.ResolveFromCookies(r, s.FromCookies, session.MaxLifetime)
	resolved := &redisSettings{
		Options: Options{
			Username:    r.Text(setting("username"), s.Username, ""),
			Password:    s.resolvePassword(r),
			database:    s.Database,
			sentinel:    r.Text(setting("sentinel"), s.Sentinel, ""),
			cluster:     s.Cluster,
			ClientCache: s.ClientCache == nil || *s.ClientCache,
		},
		prefix: r.Text(setting("prefix"), s.Prefix, defaultPrefix),
		tls:    s.TLS.resolve(r, setting("tls")),
	}
	for _, raw := range s.Address {
		resolved.Addresses = append(resolved.Addresses, r.Address(setting("address"), raw))
	}
	switch {
	case len(s.Address) == 0:
		r.Fail(setting("address"), "is required: the address of Redis, as <host>:<port>")
	case s.Cluster && s.Sentinel != "":
		r.Fail(setting("cluster"), "cannot be used with sentinel: remove one of the two")
	case s.Cluster && s.Database != 0:
		r.Fail(setting("database"), "must be 0: a Redis Cluster has only database 0")
	case len(s.Address) > 1 && !s.Cluster && s.Sentinel == "":
		r.Fail(setting("address"), "several addresses need sentinel or cluster")
	case s.Username != "" && s.Password == "":
		r.Fail(setting("username"), "needs password")
	case s.Database < 0:
		r.Fail(setting("database"), "must not be negative")
	case strings.ContainsAny(resolved.prefix, "{} \r\n"):
		// Braces would put all keys of a cluster on one node.
		r.Check(setting("prefix"), s.Prefix, errors.New("must not contain a brace, a space or a line break"))
	}
	if r.Err != nil {
		return nil, r.Err
	}
	resolved.read = r.Read
	return resolved, nil
}

// UnmarshalJSON reads JSON as strictly as Caddy does. Its errors show no secret.
func (s *Store) UnmarshalJSON(text []byte) error {
	type plain Store
	return config.UnmarshalStrict(text, (*plain)(s))
}

// redisTLSFiles are the settings of TLS with their placeholders replaced.
type redisTLSFiles struct{ ca, certificate, key, serverName string }

func (t *TLS) resolve(r *config.Resolver, path string) *redisTLSFiles {
	if t == nil {
		return nil
	}
	if (t.Certificate == "") != (t.Key == "") {
		r.Fail(path, "certificate and key need each other")
	}
	return &redisTLSFiles{
		ca:          r.Text(path+".ca", t.CA, ""),
		certificate: r.Text(path+".certificate", t.Certificate, ""),
		key:         r.Text(path+".key", t.Key, ""),
		serverName:  r.Text(path+".server_name", t.ServerName, ""),
	}
}

// Load reads the files.
func (f *redisTLSFiles) Load() (*tlsIdentity, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	identity := wire.AppendText(nil, f.serverName)
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, config.Errorf(config.StoreSetting+".tls.ca", "%w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, config.Errorf(config.StoreSetting+".tls.ca", "%s contains no PEM certificate", f.ca)
		}
		identity = wire.AppendText(identity, string(pem))
	}
	if f.certificate != "" {
		certificate, err := tls.LoadX509KeyPair(f.certificate, f.key)
		if err != nil {
			return nil, config.Errorf(config.StoreSetting+".tls", "reading certificate and key: %w", err)
		}
		conf.Certificates = []tls.Certificate{certificate}
		identity = wire.AppendText(identity, string(certificate.Leaf.Raw))
	}
	return &tlsIdentity{conf, sha256.Sum256(identity)}, nil
}

// Connection returns the options of the connection, and the prefix of the names of keys.
func (s *Store) Connection() (Options, string) { return s.options, s.prefix }

// Open implements session.Module.
func (s *Store) Open(env session.Env) session.Store {
	if !env.SecretGiven {
		s.logger.Warn("store redis without secret: each gateway that does not share Caddy's storage " +
			"makes its own secret, and cannot open the sessions of the others; give all of them the same `secret`")
	}
	options, prefix := s.Connection()
	options.Timeout = env.Timeout
	kept := NewRecords(options, prefix)
	if env.WatchSecret != nil && s.options.PasswordFrom != "" {
		env.WatchSecret(s.passwordFile(kept.Client))
	}
	return records.NewTickets(env, kept, env.Takeover(time.Duration(s.FromCookies)))
}

// passwordFile is the password as a secret from a file, which a client uses.
func (s *Store) passwordFile(client *Client) secretfiles.Secret {
	return secretfiles.Secret{Option: passwordSetting, Files: config.FilesIn(s.Password), Read: func() (secretfiles.Use, error) {
		r := config.NewRereader()
		password := s.resolvePassword(r)
		return func(context.Context) (bool, error) { return client.SetPassword(password) }, r.Err
	}}
}

func (s *Store) resolvePassword(r *config.Resolver) string {
	return r.Text(passwordSetting, s.Password, "")
}

// Interface guards.
var (
	_ caddy.Module          = (*Store)(nil)
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ session.Module        = (*Store)(nil)
)
