// Package porttest finds ports for the servers that tests start. Begin with Address.
package porttest

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

// last is the last port that was tried. Each process begins somewhere else, because
// several may run tests at the same time.
var last atomic.Int64

func init() { last.Store(int64(os.Getpid()) * 1009) }

// Port returns a free port of loopback, below the ports that the system gives to clients.
// The port stays free until its server listens, and while that server restarts.
func Port() int {
	for {
		port := 20000 + int(last.Add(1)%12000)
		if listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			listener.Close()
			return port
		}
	}
}

// Address returns a free address of loopback, as <host>:<port>.
func Address() string { return "127.0.0.1:" + strconv.Itoa(Port()) }
