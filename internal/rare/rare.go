// Package rare limits log lines that any client can cause.
//
// It writes nothing itself: it says whether a line is due. Begin with Line.
package rare

import (
	"cmp"
	"sync"
	"time"
)

// Line limits one log line. The line is written once a minute, with the number of requests
// since the last one. The zero value is ready to use.
type Line struct {
	// Every is the shortest time between two lines. Default: a minute.
	Every time.Duration

	mu      sync.Mutex // guards written and count
	written time.Time
	count   int
}

// interval is the usual shortest time between two lines.
const interval = time.Minute

// Next counts one request. due is true if the line is to be written now.
func (l *Line) Next(now time.Time) (requests int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if !l.written.IsZero() && now.Sub(l.written) < cmp.Or(l.Every, interval) {
		return 0, false
	}
	requests = l.count
	l.written, l.count = now, 0
	return requests, true
}

// Lines limits log lines that differ by a key, each like a Line. The keys must come from a
// small fixed set, such as the causes. The zero value is ready to use.
type Lines struct {
	mu    sync.Mutex // guards lines
	lines map[string]*Line
}

// Next counts one request for a key. due is true if the key's line is to be written now.
func (l *Lines) Next(key string, now time.Time) (requests int, due bool) {
	l.mu.Lock()
	line := l.lines[key]
	if line == nil {
		if l.lines == nil {
			l.lines = make(map[string]*Line)
		}
		line = &Line{}
		l.lines[key] = line
	}
	l.mu.Unlock()
	return line.Next(now)
}

// Hosts remembers the hosts that have been logged, so that each is logged once. Clients
// choose the hosts, so their number and length are limited. The zero value is ready to use.
type Hosts struct {
	mu    sync.Mutex // guards hosts
	hosts map[string]struct{}
}

const (
	maxHosts      = 10
	maxHostLength = 253
)

// IsNew reports whether a host is to be logged, and remembers it.
func (o *Hosts) IsNew(host string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.hosts[host]; known || len(o.hosts) >= maxHosts || len(host) > maxHostLength {
		return false
	}
	if o.hosts == nil {
		o.hosts = make(map[string]struct{})
	}
	o.hosts[host] = struct{}{}
	return true
}
