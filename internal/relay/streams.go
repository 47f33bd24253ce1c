package relay

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// End says why a stream was ended: the close code and the reason of a
// WebSocket. Codes from 4000 on are an application's own (RFC 6455 section 7.4.2);
// ours are HTTP's with 4000 added.
type End struct {
	Code   uint16
	Reason string
}

var (
	// SessionOver: the session has ended, whoever ended it.
	SessionOver = End{4401, "session ended"}
	// Unpaid: the balance has fallen below what the path requires.
	Unpaid = End{4402, "insufficient balance"}
	// Refused: the user may not be here any more, with any balance.
	Refused = End{4403, "refused"}
	// GoingAway: the gateway stops, and nobody would end the stream any more.
	GoingAway = End{1001, "going away"}
)

// Stream is a WebSocket or an event stream that was opened with an identity.
type Stream[T any] struct {
	// Session is the hash of the session that it was opened with.
	Session string
	// Owner is whatever the caller needs to know of it.
	Owner T
	// End ends it, and may wait for a slow client.
	End func(End)
}

// Table knows the open streams of each session, whichever configuration they were
// opened under. It takes as much memory as there are open connections.
type Table[T any] struct {
	Mu      sync.Mutex
	Watches map[string]*streamWatch[T] // by the session's hash
	opened  uint64                     // how many there were so far
}

// streamWatch is the open streams of one session, and the one timer at which the
// session is looked at again.
type streamWatch[T any] struct {
	open    map[*Stream[T]]uint64 // with their number: the newest one's cookie is the newest
	every   time.Duration
	timer   *time.Timer
	due     time.Time
	looking bool
}

func NewTable[T any]() *Table[T] { return &Table[T]{Watches: make(map[string]*streamWatch[T])} }

// Add watches a stream. Its session is looked at in the given interval.
func (s *Table[T]) Add(stream *Stream[T], every time.Duration, look func(session string)) {
	name := stream.Session
	s.Mu.Lock()
	defer s.Mu.Unlock()
	watch, ok := s.Watches[name]
	if !ok {
		watch = &streamWatch[T]{
			open:  make(map[*Stream[T]]uint64),
			timer: time.AfterFunc(every, func() { look(name) }),
			due:   time.Now().Add(every),
		}
		s.Watches[name] = watch
	}
	s.opened++
	watch.open[stream], watch.every = s.opened, every
}

// Remove forgets a stream that is over. With the last one the session's timer goes.
func (s *Table[T]) Remove(stream *Stream[T]) {
	name := stream.Session
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if watch, ok := s.Watches[name]; ok {
		delete(watch.open, stream)
		s.dropEmpty(name, watch)
	}
}

// dropEmpty forgets a session without streams. The lock is held.
func (s *Table[T]) dropEmpty(name string, watch *streamWatch[T]) {
	if len(watch.open) == 0 {
		watch.timer.Stop()
		delete(s.Watches, name)
	}
}

// BeginLook gives the streams of a session, the newest first, and sets when the session
// is looked at next. It gives none while a look is going on.
func (s *Table[T]) BeginLook(name string) []*Stream[T] {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	watch, ok := s.Watches[name]
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

// EndLook ends what beginLook began, and says in which interval to go on.
func (s *Table[T]) EndLook(name string, every time.Duration) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if watch, ok := s.Watches[name]; ok {
		watch.looking, watch.every = false, every
	}
}

// LookBefore has a session looked at within a time, if it is not due before.
func (s *Table[T]) LookBefore(name string, after time.Duration) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if watch, ok := s.Watches[name]; ok && time.Until(watch.due) > after {
		watch.lookAfter(after)
	}
}

// lookAfter sets when the session is looked at next. The lock is held.
func (w *streamWatch[T]) lookAfter(after time.Duration) {
	w.due = time.Now().Add(after)
	w.timer.Reset(after)
}

// Of gives the streams of a session.
func (s *Table[T]) Of(name string) []*Stream[T] {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if watch, ok := s.Watches[name]; ok {
		return slices.Collect(maps.Keys(watch.open))
	}
	return nil
}

// End ends streams of a session, and says how many of them were open. It waits for no
// client.
func (s *Table[T]) End(name string, which []*Stream[T], why End) (ended int) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	watch, ok := s.Watches[name]
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
	s.Mu.Lock()
	names := slices.Collect(maps.Keys(s.Watches))
	s.Mu.Unlock()
	for _, name := range names {
		s.End(name, s.Of(name), why)
	}
}
