package redis

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// storeOf returns the store of a block of the Caddyfile, provisioned.
func storeOf(t *testing.T, block string) (*Store, error) {
	t.Helper()
	s := new(Store)
	if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser("redis {\n" + block + "\n}")); err != nil {
		return nil, err
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	return s, s.Provision(ctx)
}

// storeFor is one process's store for a block of the Caddyfile.
func storeFor(t *testing.T, block string) *records.Tickets {
	t.Helper()
	s, err := storeOf(t, block)
	if err != nil {
		t.Fatal(err)
	}
	options, prefix := s.Connection()
	options.Timeout = testTimeout
	p := recordstest.Place{Open: func(*testing.T) records.Store { return newApartRecords(options, prefix) }}
	return p.Store(t)
}

// keeps reports whether a store can keep a session.
func keeps(t *testing.T, store *records.Tickets) error {
	t.Helper()
	s, err := store.Create(t.Context(), recordstest.FreshSession("12345"))
	if err != nil {
		return err
	}
	if got, err := store.Reread(t.Context(), s); err != nil || got == nil {
		t.Errorf("what was written reads as %v, %v", got, err)
	}
	return nil
}

func TestRedisStoreUsesItsUserPasswordDatabaseAndPrefix(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Must("ACL", "SETUSER", "gateway", "on", ">correct horse", "~app:*", "+@all")
	store := storeFor(t, "address "+server.Address()+"\nusername gateway\npassword \"correct horse\"\ndatabase 3\nprefix app:")
	if err := keeps(t, store); err != nil {
		t.Fatal(err)
	}
	if clients := server.Must("CLIENT", "LIST"); !strings.Contains(clients, "name=tollgate") || !strings.Contains(clients, "user=gateway") {
		t.Errorf("connected are:\n%s", clients)
	}
	if keys := server.Must("INFO", "keyspace"); !strings.Contains(keys, "db3:keys=2") || strings.Contains(keys, "db0:") {
		t.Errorf("the session is elsewhere:\n%s", keys)
	}
	// The user has no permissions outside its prefix.
	store = storeFor(t, "address "+server.Address()+"\nusername gateway\npassword \"correct horse\"\ndatabase 3\nprefix other:")
	if err := keeps(t, store); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("with another prefix: %v", err)
	}
	// Without a username the password is that of Redis's user `default`.
	server.Must("CONFIG", "SET", "requirepass", "battery staple")
	if err := keeps(t, storeFor(t, "address "+server.Address()+"\npassword \"battery staple\"")); err != nil {
		t.Error(err)
	}
}

func TestWrongRedisPasswordFailsWithoutShowingIt(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Must("ACL", "SETUSER", "gateway", "on", ">right", "~*", "+@all")
	store := storeFor(t, "address "+server.Address()+"\nusername gateway\npassword topsecret")
	for _, c := range []struct {
		name string
		err  error
	}{{"writing", keeps(t, store)}, {"being ready", store.Ready(t.Context())}} {
		if c.err == nil || !strings.Contains(c.err.Error(), "WRONGPASS") || strings.Contains(c.err.Error(), "topsecret") {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
	// An old Redis repeats an unknown command with its arguments.
	repeating, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { repeating.Close() })
	go func() {
		for {
			conn, err := repeating.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewReader(conn); ; {
					count, err := lines.ReadString('\n')
					if err != nil {
						return
					}
					n, _ := strconv.Atoi(strings.TrimSpace(count[1:]))
					var words []string
					for range n {
						lines.ReadString('\n')
						word, _ := lines.ReadString('\n')
						words = append(words, "'"+strings.TrimSpace(word)+"'")
					}
					fmt.Fprintf(conn, "-ERR unknown command %s, with args beginning with: %s\r\n", words[0], strings.Join(words[1:], " "))
				}
			}()
		}
	}()
	for _, cache := range []string{"on", "off"} {
		store = storeFor(t, "address "+repeating.Addr().String()+"\nusername gateway\npassword topsecret\nclient_cache "+cache)
		err := keeps(t, store)
		if err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("client_cache %s: %v", cache, err)
		}
		if cache == "on" && !strings.Contains(err.Error(), "set `client_cache off`") {
			t.Errorf("client_cache %s: %v", cache, err)
		}
	}
}

// authority signs certificates in a test.
type authority struct {
	t      *testing.T
	folder string
	name   string
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, folder: t.TempDir(), name: name}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.write("ca", a.cert, a.key)
	return a
}

// sign makes a certificate for a name, and returns the files of the certificate and its key.
func (a *authority) sign(name string) (certificate, key string) {
	a.t.Helper()
	own, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return a.write(name, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.ParseIP(name)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, own)
}

func (a *authority) file(name string) string { return filepath.Join(a.folder, name) }

func (a *authority) write(name string, cert *x509.Certificate, key *ecdsa.PrivateKey) (certificate, keyFile string) {
	a.t.Helper()
	if cert.IPAddresses != nil && cert.IPAddresses[0] == nil {
		cert.IPAddresses = nil
	}
	signed, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	encoded, _ := x509.MarshalPKCS8PrivateKey(key)
	certificate, keyFile = a.file(name+".pem"), a.file(name+".key")
	os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), 0o600)
	os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600)
	return certificate, keyFile
}

func TestRedisStoreVerifiesTheTLSCertificate(t *testing.T) {
	t.Parallel()
	ours, foreign := newAuthority(t, "ours"), newAuthority(t, "foreign")
	certificate, key := ours.sign("redis.test")
	port := strconv.Itoa(porttest.Port())
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ours.file("ca.pem"))
	clientCertificate, clientKey := ours.sign("gateway")
	foreignCertificate, foreignKey := foreign.sign("gateway")
	with := func(words ...string) string {
		return "address 127.0.0.1:" + port + "\ntls {\n" + strings.Join(words, "\n") + "\n}"
	}
	ca, name := "ca "+ours.file("ca.pem"), "server_name redis.test"
	identified := "certificate " + clientCertificate + "\nkey " + clientKey
	if err := keeps(t, storeFor(t, with(ca, name, identified))); err != nil {
		t.Errorf("with all that is right: %v", err)
	}
	for _, c := range []struct {
		what  string
		words []string
	}{
		{"the system's roots", []string{name, identified}},
		{"another authority", []string{"ca " + foreign.file("ca.pem"), name, identified}},
		{"a server of another name", []string{ca, "server_name other.test", identified}},
		{"the name in the address", []string{ca, identified}},
		{"no certificate of its own", []string{ca, name}},
		{"a certificate of another one", []string{ca, name, "certificate " + foreignCertificate + "\nkey " + foreignKey}},
	} {
		if err := keeps(t, storeFor(t, with(c.words...))); err == nil {
			t.Errorf("with %s a session was kept", c.what)
		}
	}
	if err := keeps(t, storeFor(t, "address 127.0.0.1:"+port)); err == nil {
		t.Error("without TLS a session was kept")
	}
	if err := keeps(t, storeFor(t, "address 127.0.0.1:"+port+"\ntls")); err == nil {
		t.Error("with the system's roots a session was kept")
	}

	empty := ours.file("empty.pem")
	os.WriteFile(empty, nil, 0o600)
	for _, c := range []struct{ words, want string }{
		{"ca /nowhere/ca.pem", "session.store.tls.ca: open /nowhere/ca.pem"},
		{"ca " + empty, "session.store.tls.ca: " + empty + " contains no PEM certificate"},
		{"certificate /nowhere/c.pem\nkey " + clientKey, "session.store.tls: reading certificate and key"},
		{"certificate " + clientCertificate + "\nkey " + empty, "session.store.tls: reading certificate and key"},
		{"certificate " + clientCertificate + "\nkey " + foreignKey, "session.store.tls: reading certificate and key"},
	} {
		if _, err := storeOf(t, with(c.words)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.words, err, c.want)
		}
	}
}

func TestRedisStoreReplacesPlaceholdersAtStart(t *testing.T) {
	t.Setenv("REDIS_AT", "127.0.0.1:1")
	t.Setenv("REDIS_EMPTY", "")
	file := filepath.Join(t.TempDir(), "password")
	os.WriteFile(file, []byte("from a file\n"), 0o600)
	s, err := storeOf(t, "address {env.REDIS_AT}\npassword {file."+file+"}")
	if err != nil {
		t.Fatal(err)
	}
	if options, _ := s.Connection(); options.Addresses[0] != "127.0.0.1:1" || options.Password != "from a file" {
		t.Errorf("read: %q, %q", options.Addresses, options.Password)
	}
	for _, c := range []struct{ word, block string }{
		{"address", "address {env.REDIS_EMPTY}"},
		{"username", "address a:1\nusername {env.REDIS_EMPTY}\npassword b"},
		{"password", "address a:1\npassword {env.REDIS_EMPTY}"},
		{"sentinel", "address a:1\nsentinel {env.REDIS_EMPTY}"},
		{"prefix", "address a:1\nprefix {env.REDIS_EMPTY}"},
		{"tls.ca", "address a:1\ntls {\nca {env.REDIS_EMPTY}\n}"},
		{"tls.certificate", "address a:1\ntls {\ncertificate {env.REDIS_EMPTY}\nkey b\n}"},
		{"tls.key", "address a:1\ntls {\ncertificate b\nkey {env.REDIS_EMPTY}\n}"},
		{"tls.server_name", "address a:1\ntls {\nserver_name {env.REDIS_EMPTY}\n}"},
	} {
		if _, err := storeOf(t, c.block); err == nil || !strings.Contains(err.Error(), "session.store."+c.word+": ") {
			t.Errorf("%s: %v", c.word, err)
		}
	}
	if _, err := storeOf(t, "address a:1\nprefix \"a{b\""); err == nil || !strings.Contains(err.Error(), "session.store.prefix: must not contain a brace, a space or a line break") {
		t.Errorf("prefix: %v", err)
	}
}

// breakingProxy is a proxy between a client and Redis that breaks connections on demand.
type breakingProxy struct {
	net.Listener
	// If beforeAsking is set, the next command is dropped, and its connection is closed. If
	// beforeAnswering is set, that happens to the next reply.
	beforeAsking, beforeAnswering atomic.Bool
}

func newBreakingProxy(t *testing.T, to string) *breakingProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	p := &breakingProxy{Listener: listener}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			go pass(server, client, &p.beforeAsking)
			go pass(client, server, &p.beforeAnswering)
		}
	}()
	return p
}

// pass copies until one side is closed, or until drop is set when the next bytes arrive.
func pass(to, from net.Conn, drop *atomic.Bool) {
	defer to.Close()
	defer from.Close()
	piece := make([]byte, 64<<10)
	for {
		n, err := from.Read(piece)
		if err != nil || drop.CompareAndSwap(true, false) {
			return
		}
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

// A connection may break before a command arrives, or before its reply arrives.
func TestBrokenRedisConnectionCausesNoError(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := newBreakingProxy(t, server.Address())
	options := Options{Addresses: []string{proxy.Addr().String()}, Timeout: testTimeout}
	for _, clientCache := range []bool{true, false} {
		options.ClientCache = clientCache
		store := opened(t, options)
		for _, c := range []struct {
			when   string
			broken *atomic.Bool
		}{{"asking", &proxy.beforeAsking}, {"answering", &proxy.beforeAnswering}} {
			s, value := recordstest.Keep(t, store, recordstest.FreshSession("12345"))
			name, user := s.ID.Hash(), s.Kept.User
			text, _, _ := store.Records.Get(t.Context(), name, true)
			next, _ := records.ParseRecord(text)
			next.Revision++
			var lock session.Lock
			for _, step := range []struct {
				what string
				do   func() (bool, error)
			}{
				{"reading", func() (bool, error) { found, err := store.Load(t.Context(), value); return found.Session != nil, err }},
				{"rereading", func() (bool, error) { got, err := store.Reread(t.Context(), s); return got != nil, err }},
				{"replacing", func() (bool, error) { return store.Records.Replace(t.Context(), name, 1, next) }},
				{"noting", func() (bool, error) { return true, store.Records.AddToIndex(t.Context(), user, name, s.Kept.Expires) }},
				{"listing", func() (bool, error) {
					names, err := store.Records.Index(t.Context(), user)
					return len(names) > 0, err
				}},
				{"locking", func() (ok bool, err error) {
					lock, ok, err = store.Records.TryLock(t.Context(), name, time.Minute)
					return ok, err
				}},
				{"renewing", func() (bool, error) { return true, lock.Renew(t.Context()) }},
				{"unlocking", func() (bool, error) { return true, lock.Release(t.Context()) }},
				{"taking back", func() (bool, error) { return true, store.Records.RemoveFromIndex(t.Context(), user, name) }},
				{"removing", func() (bool, error) { return true, store.Records.Remove(t.Context(), name) }},
				{"probing", func() (bool, error) { return true, store.Records.Ready(t.Context()) }},
			} {
				if clientCache && step.what == "reading" {
					continue // Redis is not asked
				}
				c.broken.Store(true)
				if ok, err := step.do(); !ok || err != nil {
					t.Errorf("broken before %s: %s: %v, %v (client cache %v)", c.when, step.what, ok, err, clientCache)
				}
				if c.broken.Load() {
					t.Errorf("%s asked nothing", step.what)
				}
			}
		}
	}
}

func TestConnectionsCloseAfterTheLastHolder(t *testing.T) {
	server := redistest.Start(t)
	const linger = 400 * time.Millisecond
	client := NewClient(optionsOf(server), linger)
	release := client.Hold()
	if _, err := client.use(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.Release() // the first holder
	time.Sleep(linger + linger/2)
	if server.Connections() == "" {
		t.Error("the connections were closed while somebody held them")
	}
	released := time.Now()
	release()
	time.Sleep(linger / 4)
	if server.Connections() == "" && time.Since(released) < linger {
		t.Error("the connections were closed at once, in the midst of requests")
	}
	recordstest.Eventually(t, "the connections are closed", func() bool { return server.Connections() == "" })
}
