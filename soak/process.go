package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs until it is ended.
type process struct {
	*exec.Cmd
	ended chan struct{}
}

func startProcess(logFile, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{exec.Command(program, args...), make(chan struct{})}
	p.Stdout, p.Stderr = log, log
	p.Dir = filepath.Dir(logFile)
	if err := p.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		p.Wait()
		close(p.ended)
	}()
	return p, nil
}

// end sends a signal and waits until the process has ended. After the timeout it kills the
// process.
func (p *process) end(signal os.Signal, timeout time.Duration) error {
	if p == nil {
		return nil
	}
	p.Process.Signal(signal)
	select {
	case <-p.ended:
		return nil
	case <-time.After(timeout):
		p.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s did not end within %v of %v", filepath.Base(p.Path), timeout, signal)
	}
}

// redis is a Redis that is killed and started again, and does not lose acknowledged writes.
type redis struct {
	folder  string
	address string
	process *process
}

func (r *redis) start() (err error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return errors.New("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	_, port, _ := net.SplitHostPort(r.address)
	r.process, err = startProcess(filepath.Join(r.folder, "redis.log"), program,
		"--port", port, "--bind", "127.0.0.1", "--dir", r.folder, "--save", "",
		"--appendonly", "yes", "--appendfsync", "no") // an fsync on a busy disk can outlast the gateway's timeout
	if err != nil {
		return err
	}
	return waitUntil(func() bool {
		conn, err := net.Dial("tcp", r.address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, "Redis answers")
}

func (r *redis) kill() error { return r.process.end(syscall.SIGKILL, 5*time.Second) }

// gateway is one replica.
type gateway struct {
	number  int
	folder  string
	program string
	url     string
	admin   string
	config  func(*gateway) string
	process *process
}

func (g *gateway) start() error {
	file := filepath.Join(g.folder, fmt.Sprintf("Caddyfile-%d", g.number))
	if err := os.WriteFile(file, []byte(g.config(g)), 0o600); err != nil {
		return err
	}
	var err error
	g.process, err = startProcess(filepath.Join(g.folder, fmt.Sprintf("gateway-%d.log", g.number)), g.program,
		"run", "--config", file, "--adapter", "caddyfile")
	if err != nil {
		return err
	}
	return waitUntil(func() bool {
		res, err := http.Get(g.url + "/oauth/health")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	}, fmt.Sprintf("gateway %d answers", g.number))
}

func (g *gateway) stop() error { return g.process.end(syscall.SIGTERM, time.Minute) }

// reload loads the same configuration again. A comment makes its text differ.
func (g *gateway) reload() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	body := strings.NewReader(g.config(g))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.admin+"/load", body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate") // load it although nothing has changed
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var text bytes.Buffer
		text.ReadFrom(res.Body)
		return fmt.Errorf("reloading gateway %d: %s: %s", g.number, res.Status, &text)
	}
	return nil
}

func waitUntil(ok func() bool, what string) error {
	for range 600 {
		if ok() {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("timed out waiting until %s", what)
}
