// Package redistest starts real Redis servers for tests. Begin with Start.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

// Server is a real Redis in a test, with a folder of its own.
type Server struct {
	t testing.TB
	// Folder is where the server keeps its files.
	Folder  string
	Port    int
	flags   []string
	process *exec.Cmd
	exited  chan struct{}
	log     strings.Builder
	admin   rueidis.Client
}

// Start starts a Redis that keeps its data over a restart. flags are those of the command
// line.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	s := &Server{t: t, Folder: t.TempDir(), flags: flags}
	for range 10 {
		s.Port = porttest.Port()
		if s.tryStart() {
			break
		}
	}
	if s.process == nil {
		t.Fatalf("redis-server does not start: %s", s.log.String())
	}
	t.Cleanup(func() {
		if s.admin != nil {
			s.admin.Close()
		}
		s.Kill()
	})
	return s
}

// Address is where the server listens, as host:port.
func (s *Server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.Port) }

// tryStart starts the process and waits until it answers.
func (s *Server) tryStart() bool {
	s.t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatal("install redis-server (Debian: apt-get install redis-server)")
	}
	args := append(slices.Clone(s.flags), "--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--dir", s.Folder)
	if !slices.Contains(args, "--sentinel") {
		// Redis writes each change to its file before it replies, so the data outlives SIGKILL.
		// It leaves fsync to the kernel: on a busy disk one fsync can take longer than the
		// gateway waits for a reply, and only the loss of the whole machine needs it.
		args = append(args, "--save", "", "--appendonly", "yes", "--appendfsync", "no")
	}
	process := exec.Command(program, args...)
	s.log.Reset()
	process.Stdout, process.Stderr = &s.log, &s.log
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { process.Wait(); close(exited) }()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		select {
		case <-exited:
			return false
		case <-time.After(5 * time.Millisecond):
		}
		if s.answers() {
			s.process, s.exited = process, exited
			return true
		}
	}
	process.Process.Kill()
	<-exited
	return false
}

// answers reports whether the server has read its data and sends a reply, even an error.
func (s *Server) answers() bool {
	conn, err := net.DialTimeout("tcp", s.Address(), time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "PING\r\n")
	answer := make([]byte, 8)
	n, err := conn.Read(answer)
	return err == nil && n > 0 && !strings.HasPrefix(string(answer[:n]), "-LOADING")
}

// Kill kills the process. Restart starts it again with its data.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Process.Signal(syscall.SIGKILL)
		<-s.exited
		s.process = nil
	}
}

// Restart ends the process, and starts it again with its data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	for range 20 {
		if s.tryStart() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("redis-server does not start again: %s", s.log.String())
}

// Freeze stops the process: it accepts connections, but sends no replies until Thaw.
func (s *Server) Freeze() { s.process.Process.Signal(syscall.SIGSTOP) }

// Thaw lets the process go on after Freeze.
func (s *Server) Thaw() { s.process.Process.Signal(syscall.SIGCONT) }

// Command sends a command as an operator would, on a connection of its own.
func (s *Server) Command(words ...string) rueidis.RedisResult {
	s.t.Helper()
	if s.admin == nil {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{s.Address()}, ForceSingleClient: true, DisableCache: true, ClientName: "operator",
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.admin = client
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.admin.Do(ctx, s.admin.B().Arbitrary(words...).Build())
}

// Must is Command for a command that must not fail. It returns the reply as text, and a list
// with line feeds.
func (s *Server) Must(words ...string) string {
	s.t.Helper()
	result := s.Command(words...)
	if err := result.Error(); err != nil {
		if errors.Is(err, rueidis.Nil) {
			return ""
		}
		s.t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	message, _ := result.ToMessage()
	return textOf(message)
}

func textOf(message rueidis.RedisMessage) string {
	if list, err := message.ToArray(); err == nil {
		var texts []string
		for _, element := range list {
			texts = append(texts, textOf(element))
		}
		return strings.Join(texts, "\n")
	}
	if n, err := message.AsInt64(); err == nil {
		return strconv.FormatInt(n, 10)
	}
	text, _ := message.ToString()
	return text
}

// Calls counts how often a command was called.
func (s *Server) Calls(command string) int {
	s.t.Helper()
	for _, line := range strings.Split(s.Must("INFO", "commandstats"), "\r\n") {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			count, _, _ := strings.Cut(rest, ",")
			n, _ := strconv.Atoi(count)
			return n
		}
	}
	return 0
}

var connectionID = regexp.MustCompile(`(?m)^(?:txt:)?id=(\d+) .* name=tollgate `)

// Connections returns the ids of the gateway's connections.
func (s *Server) Connections() string {
	var ids []string
	for _, found := range connectionID.FindAllStringSubmatch(s.Must("CLIENT", "LIST"), -1) {
		ids = append(ids, found[1])
	}
	return strings.Join(ids, " ")
}
