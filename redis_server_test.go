package tollgate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-tollgate/tollgate/stores/redis"
)

// redisServer is a real Redis in a test, with a folder of its own.
type redisServer struct {
	t       testing.TB
	folder  string
	port    int
	flags   []string
	process *exec.Cmd
	exited  chan struct{}
	log     strings.Builder
	admin   rueidis.Client
}

// startRedis starts a Redis that keeps what it was told over a restart. Flags come as
// on the command line.
func startRedis(t testing.TB, flags ...string) *redisServer {
	t.Helper()
	s := &redisServer{t: t, folder: t.TempDir(), flags: flags}
	for range 10 {
		s.port = freePort()
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
		s.kill()
	})
	return s
}

func (s *redisServer) address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// tryStart starts the process and waits until it answers.
func (s *redisServer) tryStart() bool {
	s.t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatal("install redis-server (Debian: apt-get install redis-server)")
	}
	args := append(slices.Clone(s.flags), "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.folder)
	if !slices.Contains(args, "--sentinel") {
		args = append(args, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
	}
	process := exec.Command(program, args...)
	s.log.Reset()
	process.Stdout, process.Stderr = &s.log, &s.log
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { process.Wait(); close(exited) }()
	for range 500 {
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

// answers: it has read its data, whatever it says to a stranger.
func (s *redisServer) answers() bool {
	conn, err := net.DialTimeout("tcp", s.address(), time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(conn, "PING\r\n")
	answer := make([]byte, 8)
	n, err := conn.Read(answer)
	return err == nil && n > 0 && !strings.HasPrefix(string(answer[:n]), "-LOADING")
}

// kill ends the process at once, and restart begins it anew with its data.
func (s *redisServer) kill() {
	if s.process != nil {
		s.process.Process.Signal(syscall.SIGKILL)
		<-s.exited
		s.process = nil
	}
}

func (s *redisServer) restart() {
	s.t.Helper()
	s.kill()
	for range 20 {
		if s.tryStart() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("redis-server does not start again: %s", s.log.String())
}

// freeze lets it hang: it takes connections, and answers nothing until thaw.
func (s *redisServer) freeze() { s.process.Process.Signal(syscall.SIGSTOP) }

func (s *redisServer) thaw() { s.process.Process.Signal(syscall.SIGCONT) }

// command sends a command as the operator would, on a connection of its own.
func (s *redisServer) command(words ...string) rueidis.RedisResult {
	s.t.Helper()
	if s.admin == nil {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{s.address()}, ForceSingleClient: true, DisableCache: true, ClientName: "operator",
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.admin = client
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.admin.Do(ctx, s.admin.B().Arbitrary(words...).Build())
}

// must is command for what may not fail; it gives the answer as text, lists with line
// feeds.
func (s *redisServer) must(words ...string) string {
	s.t.Helper()
	result := s.command(words...)
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

// calls counts how often a command was called.
func (s *redisServer) calls(command string) int {
	s.t.Helper()
	for _, line := range strings.Split(s.must("INFO", "commandstats"), "\r\n") {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			count, _, _ := strings.Cut(rest, ",")
			n, _ := strconv.Atoi(count)
			return n
		}
	}
	return 0
}

// options are those of a client for this server.
func (s *redisServer) options() redis.Options {
	return redis.Options{Addresses: []string{s.address()}, ClientCache: true}
}

// newApartRedisRecords is another process's view: the pool would share the client.
func newApartRedisRecords(options redis.Options, prefix string) *redis.Records {
	client := redis.NewClient(options, 0)
	records := &redis.Records{Client: client, Release: client.Release, Prefix: prefix}
	return records
}
