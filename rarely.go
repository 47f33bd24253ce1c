package tollgate

import (
	"sync"
	"time"
)

// rareLine limits a log line that any client can cause. It is written once per interval,
// with the number of requests since the last line.
type rareLine struct {
	mu      sync.Mutex // guards written and count
	written time.Time
	count   int
}

// rareInterval is the shortest time between two such lines.
const rareInterval = time.Minute

// next counts one request. due is true if the line is to be written now.
func (l *rareLine) next(now time.Time) (requests int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if !l.written.IsZero() && now.Sub(l.written) < rareInterval {
		return 0, false
	}
	requests = l.count
	l.written, l.count = now, 0
	return requests, true
}
