package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	// Stock Caddy's modules, and ours.
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-tollgate/tollgate"
)

// roleVariable tells a child of this program, which is this program again, what it
// is to be.
const roleVariable = "TOLLGATE_BENCH_ROLE"

const (
	roleCaddy    = "caddy"
	roleUpstream = "upstream"
)

// configVariable is the path of Caddy's Caddyfile.
const configVariable = "TOLLGATE_BENCH_CONFIG"

// playRole is a child's main function. It serves until its standard input ends,
// which also happens when the parent dies.
func playRole(role string) {
	answers := os.Stdout
	os.Stdout = os.Stderr // the answers stay free of what anybody else prints
	switch role {
	case roleCaddy:
		go answerQuestions(os.Stdin, answers)
		os.Args = []string{"caddy", "run", "--adapter", "caddyfile", "--config", os.Getenv(configVariable)}
		caddycmd.Main()
	case roleUpstream:
		go answerQuestions(os.Stdin, answers)
		fmt.Fprintln(os.Stderr, "upstream:", serveUpstream(answers))
		os.Exit(1)
	default:
		fmt.Fprintf(os.Stderr, "unknown role %q\n", role)
		os.Exit(1)
	}
}

// answerQuestions answers the parent, one line for each, and ends the process when
// the parent is gone.
func answerQuestions(questions io.Reader, answers io.Writer) {
	var profile *os.File
	for lines := bufio.NewScanner(questions); lines.Scan(); {
		question, argument, _ := strings.Cut(lines.Text(), " ")
		answer, err := "", error(nil)
		switch question {
		case "cpu":
			var used time.Duration
			used, err = cpuTime()
			answer = strconv.FormatInt(int64(used), 10)
		case "profile":
			if profile, err = os.Create(argument); err == nil {
				err = pprof.StartCPUProfile(profile)
			}
		case "profiled":
			pprof.StopCPUProfile()
			err = profile.Close()
		default:
			err = errors.New("unknown question")
		}
		if err != nil {
			fmt.Fprintf(answers, "error %v\n", err)
			continue
		}
		fmt.Fprintf(answers, "ok %s\n", answer)
	}
	os.Exit(0)
}

// child is a process that was started here.
type child struct {
	name    string
	command *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Reader
	logPath string
	// ended is closed when the process has ended, by the goroutine that waits for it.
	ended chan struct{}
}

// startChild starts this program in another role. What it logs goes to a file, for
// the case that something fails.
func startChild(role, logPath string, environment ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own copy
	c := &child{name: role, command: exec.Command(self), logPath: logPath, ended: make(chan struct{})}
	c.command.Env = append(append(os.Environ(), roleVariable+"="+role), environment...)
	c.command.Stderr = log
	if c.stdin, err = c.command.StdinPipe(); err != nil {
		return nil, err
	}
	// A pipe of our own: the one of StdoutPipe is closed as soon as the child ends.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	c.command.Stdout = write
	c.answers = bufio.NewReader(read)
	if err := c.command.Start(); err != nil {
		read.Close()
		return nil, err
	}
	go func() {
		c.command.Wait()
		close(c.ended)
	}()
	return c, nil
}

// ask puts a question to a child and gives its answer.
func (c *child) ask(question string) (string, error) {
	if _, err := io.WriteString(c.stdin, question+"\n"); err != nil {
		return "", fmt.Errorf("asking %s: %w", c.name, err)
	}
	return c.answer()
}

func (c *child) answer() (string, error) {
	line, err := c.answers.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s does not answer: %w", c.name, err)
	}
	verdict, answer, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if verdict != "ok" {
		return "", fmt.Errorf("%s: %s", c.name, answer)
	}
	return answer, nil
}

// cpuTime is the CPU time that a child has used so far.
func (c *child) cpuTime() (time.Duration, error) {
	answer, err := c.ask("cpu")
	if err != nil {
		return 0, err
	}
	nanoseconds, err := strconv.ParseInt(answer, 10, 64)
	return time.Duration(nanoseconds), err
}

func (c *child) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// stop ends a child and waits for that.
func (c *child) stop() {
	c.stdin.Close()
	select {
	case <-c.ended:
	case <-time.After(5 * time.Second):
		c.command.Process.Kill()
		<-c.ended
	}
}
