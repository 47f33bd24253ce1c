package relay

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/session"
)

// End says why a stream was ended: the close code and the reason of a
// WebSocket. Codes from 4000 on are an application's own (RFC 6455 section 7.4.2);
// ours are HTTP's with 4000 added.
type End struct {
	Code   uint16
	Reason string
}

var (
	// SessionOver means that the session has ended, for any reason.
	SessionOver = End{4401, "session ended"}
	// Unpaid means that the balance has fallen below what the path requires.
	Unpaid = End{4402, "insufficient balance"}
	// Refused means that the user may not use the path any more, with any balance.
	Refused = End{4403, "refused"}
	// GoingAway means that the gateway stops. After that, it could not end the stream.
	GoingAway = End{1001, "going away"}
)

// Stream is a WebSocket or an event stream of a signed-in user.
type Stream[T any] struct {
	// Session is the hash of the session that opened the stream.
	Session string
	// Owner is data of the caller.
	Owner T
	// End ends the stream. It may wait for a slow client.
	End func(End)
}

// Table holds the open streams of each session, across reloads of the configuration. Its
// memory grows with the number of open connections only.
type Table[T any] struct {
	mu      sync.Mutex                 // guards what follows
	watches map[string]*streamWatch[T] // by the session's hash
	opened  uint64                     // the number of streams opened so far
}

// streamWatch holds the open streams of one session, and the timer of the next check of the
// session.
type streamWatch[T any] struct {
	open    map[*Stream[T]]uint64 // the values count up: the newest stream has the newest cookie
	every   time.Duration
	timer   *time.Timer
	due     time.Time
	looking bool
}

// NewTable returns an empty table.
func NewTable[T any]() *Table[T] { return &Table[T]{watches: make(map[string]*streamWatch[T])} }

// Add adds a stream. look is called for its session in the given interval.
func (s *Table[T]) Add(stream *Stream[T], every time.Duration, look func(session string)) {
	name := stream.Session
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		watch = &streamWatch[T]{
			open:  make(map[*Stream[T]]uint64),
			timer: time.AfterFunc(every, func() { look(name) }),
			due:   time.Now().Add(every),
		}
		s.watches[name] = watch
	}
	s.opened++
	watch.open[stream], watch.every = s.opened, every
}

// Len returns how many streams are open.
func (s *Table[T]) Len() (open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, watch := range s.watches {
		open += len(watch.open)
	}
	return open
}

// Remove removes a stream that is over. The session's timer stops with the last stream.
func (s *Table[T]) Remove(stream *Stream[T]) {
	name := stream.Session
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok {
		delete(watch.open, stream)
		s.dropEmpty(name, watch)
	}
}

// dropEmpty removes a session that has no streams. The lock is held.
func (s *Table[T]) dropEmpty(name string, watch *streamWatch[T]) {
	if len(watch.open) == 0 {
		watch.timer.Stop()
		delete(s.watches, name)
	}
}

// Check looks at each open stream of a session, the newest first, and ends those for which
// look returns a reason. It returns how many streams it has ended for each reason. look also
// returns the interval at which the session is checked from now on: the shortest one counts.
// Check does nothing while another check of the session runs.
func (s *Table[T]) Check(name string, look func(*Stream[T]) (why *End, every time.Duration)) map[End]int {
	open := s.beginCheck(name)
	if len(open) == 0 {
		return nil
	}
	ends := make(map[End][]*Stream[T])
	next := time.Duration(math.MaxInt64)
	for _, stream := range open {
		why, every := look(stream)
		next = min(next, every)
		if why != nil {
			ends[*why] = append(ends[*why], stream)
		}
	}
	s.endCheck(name, next)
	ended := make(map[End]int)
	for why, which := range ends {
		ended[why] = s.end(name, which, why)
	}
	return ended
}

// beginCheck sets the time of the next check of a session. It returns the streams of the
// session, the newest first, or nil while another check runs.
func (s *Table[T]) beginCheck(name string) []*Stream[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		return nil
	}
	watch.lookAfter(watch.every)
	if watch.looking {
		return nil
	}
	watch.looking = true
	return slices.SortedFunc(maps.Keys(watch.open), func(a, b *Stream[T]) int {
		return cmp.Compare(watch.open[b], watch.open[a])
	})
}

// endCheck ends a check that beginCheck began, and sets the interval of the checks.
func (s *Table[T]) endCheck(name string, every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok {
		watch.looking, watch.every = false, every
	}
}

// CheckInterval gives the time between two checks of a session: up to a fifth less than the
// recheck interval. The part depends on the session's id, so that not all sessions are
// checked at the same time.
func CheckInterval(recheck time.Duration, id session.ID) time.Duration {
	return recheck - recheck/5*time.Duration(id[0])/256
}

// LookBefore brings the next check of a session forward, if it is not due within the given
// time.
func (s *Table[T]) LookBefore(name string, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok && time.Until(watch.due) > after {
		watch.lookAfter(after)
	}
}

// lookAfter sets the time of the next check. The lock is held.
func (w *streamWatch[T]) lookAfter(after time.Duration) {
	w.due = time.Now().Add(after)
	w.timer.Reset(after)
}

// End ends the streams of a session, and returns how many were open. It does not wait for
// clients.
func (s *Table[T]) End(name string, why End) (ended int) {
	s.mu.Lock()
	var which []*Stream[T]
	if watch, ok := s.watches[name]; ok {
		which = slices.Collect(maps.Keys(watch.open))
	}
	s.mu.Unlock()
	return s.end(name, which, why)
}

func (s *Table[T]) end(name string, which []*Stream[T], why End) (ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		return 0
	}
	for _, stream := range which {
		if _, open := watch.open[stream]; open {
			delete(watch.open, stream)
			go stream.End(why) // ends with the stream
			ended++
		}
	}
	s.dropEmpty(name, watch)
	return ended
}

// EndAll ends all streams.
func (s *Table[T]) EndAll(why End) {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	for _, name := range names {
		s.End(name, why)
	}
}
