package gatewaytest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// replicaEnv makes the test program a gateway of its own process; see Main.
const replicaEnv = "TOLLGATE_TEST_REPLICA"

// Order is a line that a test writes to a replica's standard input.
type Order struct {
	Caddyfile string        `json:",omitempty"` // load it
	Lease     time.Duration `json:",omitempty"` // of locks between processes
	Advance   time.Duration `json:",omitempty"` // move the clock on
}

// runReplica runs a Caddy that does what its standard input says, and ends as Caddy
// does, at its end or at SIGTERM. After each order it says "done".
func runReplica() error {
	caddy.TrapSignals()
	var c Clock // which runs
	orders := json.NewDecoder(os.Stdin)
	for {
		var order Order
		if err := orders.Decode(&order); errors.Is(err, io.EOF) {
			return caddy.Stop()
		} else if err != nil {
			return err
		}
		c.Advance(order.Advance)
		if order.Lease != 0 {
			c.Lease = order.Lease
		}
		if order.Caddyfile != "" {
			if err := loadReplica(order.Caddyfile, &c); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
}

func loadReplica(text string, c *Clock) error {
	config, err := adaptWith(c, text)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

// Fleet is one gateway in several processes, in front of the same upstream.
type Fleet struct {
	*Site
	Replicas []*Replica
	session  string // the session block
	folder   string // Caddy's storage
}

// Replica is one of the processes.
type Replica struct {
	URL string
	// Secret is the replica's setting of that name.
	Secret  string
	process *exec.Cmd
	orders  *json.Encoder
	stdin   io.Closer
	answers *bufio.Scanner
	log     *strings.Builder // to be read when the process has ended
	ended   chan struct{}
}

// NewFleet starts provider, upstream and n processes of the gateway that share what
// the given session block says.
func NewFleet(t *testing.T, n int, session string, lease time.Duration) *Fleet {
	t.Helper()
	return NewFleetWith(t, session, lease, slices.Repeat([]string{Secret}, n)...)
}

// NewFleetWith is NewFleet with one process for each setting `secret`.
func NewFleetWith(t *testing.T, session string, lease time.Duration, secrets ...string) *Fleet {
	t.Helper()
	f := &Fleet{session: session, folder: t.TempDir(), Site: &Site{T: t, Upstream: NewUpstream(t, nil), Clock: NewClock()}}
	for _, secret := range secrets {
		f.Replicas = append(f.Replicas, &Replica{URL: "http://" + porttest.Address(), Secret: secret})
	}
	f.URL = f.Replicas[0].URL
	f.Provider = simulator.New(simulator.Options{
		AutoLogin: "user123", AllowLoginHint: true, Now: f.Clock.Now,
		Clients: []simulator.Client{{ID: ClientID, Secret: ClientSecret, RedirectURIs: []string{f.URL + "/oauth/callback"}}},
	})
	server := httptest.NewServer(f.Provider)
	t.Cleanup(server.Close)
	f.ProviderURL = server.URL
	for _, r := range f.Replicas {
		f.start(r, lease)
	}
	return f
}

// start starts a replica's process, or another one after it has ended.
func (f *Fleet) start(r *Replica, lease time.Duration) {
	f.T.Helper()
	f.StartWith(r, Order{Caddyfile: f.caddyfileOf(r), Lease: lease, Advance: time.Duration(f.Clock.moved.Load())})
}

// StartWith starts a replica's process with a first order, and with more environment.
func (f *Fleet) StartWith(r *Replica, first Order, env ...string) {
	f.T.Helper()
	r.process = exec.Command(os.Args[0])
	r.process.Env = append(append(os.Environ(), replicaEnv+"=1"), env...)
	stdin, err := r.process.StdinPipe()
	if err != nil {
		f.T.Fatal(err)
	}
	stdout, err := r.process.StdoutPipe()
	if err != nil {
		f.T.Fatal(err)
	}
	log := &strings.Builder{}
	r.process.Stderr, r.log = log, log
	if err := r.process.Start(); err != nil {
		f.T.Fatal(err)
	}
	r.orders, r.stdin, r.answers, r.ended = json.NewEncoder(stdin), stdin, bufio.NewScanner(stdout), make(chan struct{})
	process, ended := r.process, r.ended
	go func() { // ends with the process
		process.Wait()
		close(ended)
	}()
	f.T.Cleanup(func() {
		stdin.Close()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			process.Process.Kill()
			<-ended
			f.T.Error("a replica did not end")
		}
		if f.T.Failed() {
			f.T.Logf("a replica's log:\n%s", log)
		}
	})
	f.order(r, first)
}

func (f *Fleet) caddyfileOf(r *Replica) string {
	return fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	grace_period 10s
	storage file_system %s
}
%s {
	bind 127.0.0.1
	tollgate {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
		}
		redirect_uri %s/oauth/callback
		secret %s
		session {
			%s
		}
		stream_recheck 1s
	}
	reverse_proxy %s
}
`, f.folder, r.URL, f.ProviderURL, ClientID, ClientSecret, f.URL, r.Secret, f.session, f.Upstream.URL)
}

// order tells a replica something, and waits until it is done.
func (f *Fleet) order(r *Replica, order Order) {
	f.T.Helper()
	if err := r.orders.Encode(order); err != nil {
		f.T.Fatal(err)
	}
	if !r.answers.Scan() {
		<-r.ended
		f.T.Fatalf("a replica ended:\n%s", r.log)
	}
}

// Advance moves everybody's clock on.
func (f *Fleet) Advance(d time.Duration) {
	f.T.Helper()
	f.Clock.Advance(d)
	for _, r := range f.Replicas {
		f.order(r, Order{Advance: d})
	}
}

// Terminate ends a replica as an operator does, and waits.
func (f *Fleet) Terminate(r *Replica, signal os.Signal) {
	f.T.Helper()
	if err := r.process.Process.Signal(signal); err != nil {
		f.T.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		f.T.Fatal("the replica does not end")
	}
}

// At returns the same page at another replica.
func (r *Replica) At(path string) string { return r.URL + path }

// Burst sends n requests at once, over all replicas in turn.
func (f *Fleet) Burst(b *Browser, n int) map[int]int {
	f.T.Helper()
	statuses := make(chan int, n)
	start := make(chan struct{})
	for i := range n {
		c, r := b.Copy(), f.Replicas[i%len(f.Replicas)]
		go func() {
			<-start
			res, err := c.Client.Get(r.At("/"))
			if err != nil {
				statuses <- 0
				return
			}
			res.Body.Close()
			statuses <- res.StatusCode
		}()
	}
	close(start)
	counted := map[int]int{}
	for range n {
		counted[<-statuses]++
	}
	return counted
}
