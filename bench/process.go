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

// roleVariable is the environment variable with the role of a child process. A child is this
// program again.
const roleVariable = "TOLLGATE_BENCH_ROLE"

const (
	roleCaddy    = "caddy"
	roleUpstream = "upstream"
)

// configVariable is the path of Caddy's Caddyfile.
const configVariable = "TOLLGATE_BENCH_CONFIG"

// playRole is the main function of a child. It serves until its standard input ends, which
// also happens if the parent dies.
func playRole(role string) {
	answers := os.Stdout
	os.Stdout = os.Stderr // so that nothing else is printed between the replies
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

// answerQuestions replies to the questions of the parent, one line each. It ends the process
// if the parent has ended.
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
	// ended is closed by the goroutine that waits for the process, when it has ended.
	ended chan struct{}
}

// startChild starts this program in another role. Its log is written to a file, which is
// shown if something fails.
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
	// Not StdoutPipe, which is closed as soon as the child ends.
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

// ask sends a question to a child and returns its reply.
func (c *child) ask(question string) (string, error) {
	if _, err := io.WriteString(c.stdin, question+"\n"); err != nil {
		return "", fmt.Errorf("asking %s: %w", c.name, err)
	}
	return c.answer()
}

func (c *child) answer() (string, error) {
	line, err := c.answers.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s does not reply: %w", c.name, err)
	}
	verdict, answer, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if verdict != "ok" {
		return "", fmt.Errorf("%s: %s", c.name, answer)
	}
	return answer, nil
}

// cpuTime returns the CPU time that a child has used so far.
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

// stop ends a child and waits until it has ended.
func (c *child) stop() {
	c.stdin.Close()
	select {
	case <-c.ended:
	case <-time.After(5 * time.Second):
		c.command.Process.Kill()
		<-c.ended
	}
}
