package redis

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/internal/secretfiles"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// passwordFile is a site whose store has its password from a file.
type passwordFile struct {
	t      *testing.T
	file   string
	store  *records.Tickets
	client *Client
	secret secretfiles.Secret
}

// openWithFile opens the store of one site. More sites with the same file share its client.
func openWithFile(t *testing.T, file, block string) *passwordFile {
	t.Helper()
	s, err := storeOf(t, block+"\npassword {file."+file+"}")
	if err != nil {
		t.Fatal(err)
	}
	p := &passwordFile{t: t, file: file}
	env := recordstest.Place{Open: func(*testing.T) records.Store { return newApartRecords(s.Connection()) }}.Store(t).Env
	env.SecretGiven = true
	env.WatchSecret = func(secret secretfiles.Secret) { p.secret = secret }
	env.Timeout = testTimeout
	env.Takeover = func(time.Duration) session.Takeover { return session.Takeover{} }
	p.store = s.Open(env).(*records.Tickets)
	p.client = p.store.Records.(*Records).Client
	t.Cleanup(p.store.Close)
	return p
}

// use writes a password into the file, and does what the site does when it sees that.
func (p *passwordFile) use(text string) (changed bool, err error) {
	p.t.Helper()
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	use, err := p.secret.Read()
	if err != nil {
		return false, err
	}
	return use(context.Background())
}

func (p *passwordFile) wantKeeps(when string) {
	p.t.Helper()
	if err := keeps(p.t, p.store); err != nil {
		p.t.Errorf("%s: %v", when, err)
	}
}

func newPasswordFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestANewRedisPasswordFromItsFile(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Must("ACL", "SETUSER", "gateway", "on", ">first-password", "~*", "+@all")
	file := newPasswordFile(t, "first-password\n")
	block := "username gateway\naddress " + server.Address()
	here, shared := openWithFile(t, file, block), openWithFile(t, file, block)
	if here.secret.Option != "session.store.password" || len(here.secret.Files) != 1 || here.secret.Files[0] != file {
		t.Fatalf("the site is told of %+v", here.secret)
	}
	if got := here.client.Options.Timeout; got != testTimeout {
		t.Errorf("the client has a timeout of %v, want the site's %v", got, testTimeout)
	}
	if here.client != shared.client {
		t.Fatal("two sites with one file have two clients")
	}
	here.wantKeeps("before")

	for _, text := range []string{"", "other-password", "two\nlines"} {
		_, err := here.use(text)
		if err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("a file with %q: got %v, want an error without the password", text, err)
		}
		here.wantKeeps("after a password that Redis refuses")
	}

	server.Must("ACL", "SETUSER", "gateway", ">next-password")
	if changed, err := here.use("next-password\n"); !changed || err != nil {
		t.Fatalf("got changed %v, %v", changed, err)
	}
	if changed, err := shared.use("next-password\n"); changed || err != nil {
		t.Errorf("the other site: got changed %v, %v, want the client that has it already", changed, err)
	}
	server.Must("ACL", "SETUSER", "gateway", "<first-password")
	server.Must("CLIENT", "KILL", "USER", "gateway")
	recordstest.Eventually(t, "a new connection authenticates with the new password", func() bool { return keeps(t, here.store) == nil })
	shared.wantKeeps("the other site")

	again := openWithFile(t, file, block) // a reload
	if again.client != here.client {
		t.Error("a reload makes another client, although the file is the same")
	}
	again.wantKeeps("after a reload")
}

func TestANewRedisPasswordWithSentinel(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	sentinel := startSentinel(t, master)
	for _, server := range []*redistest.Server{master, sentinel} {
		server.Must("ACL", "SETUSER", "gateway", "on", ">first-password", "~*", "&*", "+@all")
	}
	here := openWithFile(t, newPasswordFile(t, "first-password"), "username gateway\nsentinel shop\naddress "+sentinel.Address())
	here.wantKeeps("before")
	for _, server := range []*redistest.Server{master, sentinel} {
		server.Must("ACL", "SETUSER", "gateway", ">next-password")
	}
	if changed, err := here.use("next-password"); !changed || err != nil {
		t.Fatalf("got changed %v, %v", changed, err)
	}
	for _, server := range []*redistest.Server{master, sentinel} {
		server.Must("ACL", "SETUSER", "gateway", "<first-password")
		server.Must("CLIENT", "KILL", "USER", "gateway")
	}
	recordstest.Eventually(t, "new connections authenticate with the new password", func() bool { return keeps(t, here.store) == nil })
}
