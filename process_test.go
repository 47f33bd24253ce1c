package tollgate

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// replicaEnv makes the test program a gateway of its own process; see runReplica.
const replicaEnv = "TOLLGATE_TEST_REPLICA"

// replicaOrder is a line that a test writes to a replica's standard input.
type replicaOrder struct {
	Caddyfile string        `json:",omitempty"` // load it
	Lease     time.Duration `json:",omitempty"` // of locks between processes
	Advance   time.Duration `json:",omitempty"` // move the clock on
}

// runReplica runs a Caddy that does what its standard input says, and ends as Caddy
// does, at its end or at SIGTERM. After each order it says "done".
func runReplica() error {
	caddy.TrapSignals()
	var c testClock // which runs
	orders := json.NewDecoder(os.Stdin)
	for {
		var order replicaOrder
		if err := orders.Decode(&order); errors.Is(err, io.EOF) {
			return caddy.Stop()
		} else if err != nil {
			return err
		}
		c.advance(order.Advance)
		if order.Lease != 0 {
			c.lease = order.Lease
		}
		if order.Caddyfile != "" {
			if err := loadReplica(order.Caddyfile, &c); err != nil {
				return err
			}
		}
		fmt.Println("done")
	}
}

func loadReplica(text string, c *testClock) error {
	config, err := adaptWith(c, text)
	if err != nil {
		return err
	}
	return caddy.Load(config, true)
}

// fleet is one gateway in several processes, in front of the same upstream.
type fleet struct {
	*site
	replicas []*replica
	session  string // the session block
	folder   string // Caddy's storage
}

// replica is one of the processes.
type replica struct {
	url     string
	process *exec.Cmd
	orders  *json.Encoder
	stdin   io.Closer
	answers *bufio.Scanner
	log     *strings.Builder // to be read when the process has ended
	ended   chan struct{}
}

// newFleet starts provider, upstream and n processes of the gateway that share what
// the given session block says.
func newFleet(t *testing.T, n int, session string, lease time.Duration) *fleet {
	t.Helper()
	f := &fleet{session: session, folder: t.TempDir(), site: &site{t: t, upstream: newUpstream(t, nil), clock: newClock()}}
	for range n {
		f.replicas = append(f.replicas, &replica{url: "http://" + freeAddress()})
	}
	f.url = f.replicas[0].url
	f.provider = simulator.New(simulator.Options{
		AutoLogin: "user123", AllowLoginHint: true, Now: f.clock.now,
		Clients: []simulator.Client{{ID: testClientID, Secret: testClientSecret, RedirectURIs: []string{f.url + "/oauth/callback"}}},
	})
	server := httptest.NewServer(f.provider)
	t.Cleanup(server.Close)
	f.providerURL = server.URL
	for _, r := range f.replicas {
		f.start(r, lease)
	}
	return f
}

// start starts a replica's process, or another one after it has ended.
func (f *fleet) start(r *replica, lease time.Duration) {
	f.t.Helper()
	f.startWith(r, replicaOrder{Caddyfile: f.caddyfileOf(r), Lease: lease, Advance: time.Duration(f.clock.moved.Load())})
}

// startWith starts a replica's process with a first order, and with more environment.
func (f *fleet) startWith(r *replica, first replicaOrder, env ...string) {
	f.t.Helper()
	r.process = exec.Command(os.Args[0])
	r.process.Env = append(append(os.Environ(), replicaEnv+"=1"), env...)
	stdin, err := r.process.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	stdout, err := r.process.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	log := &strings.Builder{}
	r.process.Stderr, r.log = log, log
	if err := r.process.Start(); err != nil {
		f.t.Fatal(err)
	}
	r.orders, r.stdin, r.answers, r.ended = json.NewEncoder(stdin), stdin, bufio.NewScanner(stdout), make(chan struct{})
	process, ended := r.process, r.ended
	go func() { // ends with the process
		process.Wait()
		close(ended)
	}()
	f.t.Cleanup(func() {
		stdin.Close()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			process.Process.Kill()
			<-ended
			f.t.Error("a replica did not end")
		}
		if f.t.Failed() {
			f.t.Logf("a replica's log:\n%s", log)
		}
	})
	f.order(r, first)
}

func (f *fleet) caddyfileOf(r *replica) string {
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
`, f.folder, r.url, f.providerURL, testClientID, testClientSecret, f.url, testSecret, f.session, f.upstream.URL)
}

// order tells a replica something, and waits until it is done.
func (f *fleet) order(r *replica, order replicaOrder) {
	f.t.Helper()
	if err := r.orders.Encode(order); err != nil {
		f.t.Fatal(err)
	}
	if !r.answers.Scan() {
		<-r.ended
		f.t.Fatalf("a replica ended:\n%s", r.log)
	}
}

// advance moves everybody's clock on.
func (f *fleet) advance(d time.Duration) {
	f.t.Helper()
	f.clock.advance(d)
	for _, r := range f.replicas {
		f.order(r, replicaOrder{Advance: d})
	}
}

// terminate ends a replica as an operator does, and waits.
func (f *fleet) terminate(r *replica, signal os.Signal) {
	f.t.Helper()
	if err := r.process.Process.Signal(signal); err != nil {
		f.t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		f.t.Fatal("the replica does not end")
	}
}

// at gives the same page at another replica.
func (r *replica) at(path string) string { return r.url + path }

// burst sends n requests at once, over all replicas in turn.
func (f *fleet) burst(b *visitor, n int) map[int]int {
	f.t.Helper()
	statuses := make(chan int, n)
	start := make(chan struct{})
	for i := range n {
		c, r := b.copyOf(), f.replicas[i%len(f.replicas)]
		go func() {
			<-start
			res, err := c.Client.Get(r.at("/"))
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

// sharedPlaces are the session blocks with which processes share their sessions.
var sharedPlaces = map[string]func(t *testing.T) string{
	"storage": func(*testing.T) string { return "store storage" },
	"redis": func(t *testing.T) string {
		return "store redis {\n\t\t\t\taddress " + redistest.Start(t).Address() + "\n\t\t\t}"
	},
}

// forEachSharedPlace runs a test with each, side by side: its processes mostly wait.
func forEachSharedPlace(t *testing.T, test func(t *testing.T, session string)) {
	for name, place := range sharedPlaces {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, place(t))
		})
	}
}
