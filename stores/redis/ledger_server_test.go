package redis_test

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/stores/redis"
)

// server is a real Redis in a test, with a folder of its own.
type server struct {
	t       testing.TB
	folder  string
	port    int
	flags   []string
	process *exec.Cmd
	exited  chan struct{}
}

// startServer starts a Redis, which keeps what it was told over a restart only if the
// flags say so.
func startServer(t testing.TB, flags ...string) *server {
	t.Helper()
	s := &server{t: t, folder: t.TempDir(), flags: flags}
	for range 10 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.port = listener.Addr().(*net.TCPAddr).Port
		listener.Close()
		if s.start() {
			t.Cleanup(s.kill)
			return s
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

func (s *server) address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// start starts the process, and waits until it answers.
func (s *server) start() bool {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatal("install redis-server (Debian: apt-get install redis-server)")
	}
	args := append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.folder, "--save", ""}, s.flags...)
	s.process = exec.Command(program, args...)
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func(p *exec.Cmd) { p.Wait(); close(exited) }(s.process)
	for range 500 {
		select {
		case <-exited:
			return false
		case <-time.After(5 * time.Millisecond):
		}
		if s.command("PING") == "+PONG" {
			return true
		}
	}
	s.kill()
	return false
}

// kill ends the process at once.
func (s *server) kill() {
	s.process.Process.Kill()
	<-s.exited
}

func (s *server) restart() {
	s.t.Helper()
	s.kill()
	for range 20 {
		if s.start() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatal("redis-server does not start again")
}

// command sends an inline command, and returns the first line of the answer.
func (s *server) command(line string) string {
	conn, err := net.DialTimeout("tcp", s.address(), time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(conn, line+"\r\n")
	answer := make([]byte, 4096)
	n, _ := conn.Read(answer)
	first, _, _ := strings.Cut(string(answer[:n]), "\r\n")
	return first
}

// gateway returns the ledger of another process: it has a connection of its own, and has
// seen nothing.
func (s *server) gateway(lease time.Duration, now func() time.Time) *redis.Ledger {
	client := redis.NewClient(redis.Options{Addresses: []string{s.address()}}, 0)
	s.t.Cleanup(client.Release)
	return redis.NewLedger(client, "tollgate:", lease, now)
}
