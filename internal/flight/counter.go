package flight

import (
	"sync"
	"time"
)

// Counter counts work that must not be cut off, so that a shutdown can wait for it. The
// zero value is ready to use.
type Counter struct {
	mu      sync.Mutex // guards what follows
	running int
	idle    chan struct{} // closed when running falls to zero; nil before the first Begin
}

// Begin counts a piece of work until end is called. Call Begin before the goroutine that
// does the work starts. Otherwise a shutdown in between would not wait for the work.
func (c *Counter) Begin() (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == 0 {
		c.idle = make(chan struct{})
	}
	c.running++
	return sync.OnceFunc(c.end)
}

func (c *Counter) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running--; c.running == 0 {
		close(c.idle)
	}
}

// Count is the number of pieces of work that are running.
func (c *Counter) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// Wait waits until nothing is running, also for work that begins meanwhile. It returns false
// if the given time is over before that.
func (c *Counter) Wait(atMost time.Duration) bool {
	timeout := time.NewTimer(atMost)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		running, idle := c.running, c.idle
		c.mu.Unlock()
		if running == 0 {
			return true
		}
		select {
		case <-idle:
		case <-timeout.C:
			return false
		}
	}
}
