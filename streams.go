package tollgate

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// streamEnd says why a stream was ended: the close code and the reason of a
// WebSocket. Codes from 4000 on are an application's own (RFC 6455 section 7.4.2);
// ours are HTTP's with 4000 added.
type streamEnd struct {
	code   uint16
	reason string
}

var (
	// streamSessionOver: the session has ended, whoever ended it.
	streamSessionOver = streamEnd{4401, "session ended"}
	// streamUnpaid: the balance has fallen below what the path requires.
	streamUnpaid = streamEnd{4402, "insufficient balance"}
	// streamRefused: the user may not be here any more, with any balance.
	streamRefused = streamEnd{4403, "refused"}
	// streamGoingAway: the gateway stops, and nobody would end the stream any more.
	streamGoingAway = streamEnd{1001, "going away"}
)

// openStream is a WebSocket or an event stream that was opened with an identity.
type openStream[T any] struct {
	// session is the hash of the session that it was opened with.
	session string
	// owner is whatever the caller needs to know of it.
	owner T
	// end ends it, and may wait for a slow client.
	end func(streamEnd)
}

// streams knows the open streams of each session, whichever configuration they were
// opened under. It takes as much memory as there are open connections.
type streams[T any] struct {
	mu      sync.Mutex
	watches map[string]*streamWatch[T] // by the session's hash
	opened  uint64                     // how many there were so far
}

// streamWatch is the open streams of one session, and the one timer at which the
// session is looked at again.
type streamWatch[T any] struct {
	open    map[*openStream[T]]uint64 // with their number: the newest one's cookie is the newest
	every   time.Duration
	timer   *time.Timer
	due     time.Time
	looking bool
}

func newStreams[T any]() *streams[T] { return &streams[T]{watches: make(map[string]*streamWatch[T])} }

// add watches a stream. Its session is looked at in the given interval.
func (s *streams[T]) add(stream *openStream[T], every time.Duration, look func(session string)) {
	name := stream.session
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		watch = &streamWatch[T]{
			open:  make(map[*openStream[T]]uint64),
			timer: time.AfterFunc(every, func() { look(name) }),
			due:   time.Now().Add(every),
		}
		s.watches[name] = watch
	}
	s.opened++
	watch.open[stream], watch.every = s.opened, every
}

// remove forgets a stream that is over. With the last one the session's timer goes.
func (s *streams[T]) remove(stream *openStream[T]) {
	name := stream.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok {
		delete(watch.open, stream)
		s.dropEmpty(name, watch)
	}
}

// dropEmpty forgets a session without streams. The lock is held.
func (s *streams[T]) dropEmpty(name string, watch *streamWatch[T]) {
	if len(watch.open) == 0 {
		watch.timer.Stop()
		delete(s.watches, name)
	}
}

// beginLook gives the streams of a session, the newest first, and sets when the session
// is looked at next. It gives none while a look is going on.
func (s *streams[T]) beginLook(name string) []*openStream[T] {
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
	return slices.SortedFunc(maps.Keys(watch.open), func(a, b *openStream[T]) int {
		return cmp.Compare(watch.open[b], watch.open[a])
	})
}

// endLook ends what beginLook began, and says in which interval to go on.
func (s *streams[T]) endLook(name string, every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok {
		watch.looking, watch.every = false, every
	}
}

// lookBefore has a session looked at within a time, if it is not due before.
func (s *streams[T]) lookBefore(name string, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok && time.Until(watch.due) > after {
		watch.lookAfter(after)
	}
}

// lookAfter sets when the session is looked at next. The lock is held.
func (w *streamWatch[T]) lookAfter(after time.Duration) {
	w.due = time.Now().Add(after)
	w.timer.Reset(after)
}

// of gives the streams of a session.
func (s *streams[T]) of(name string) []*openStream[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok {
		return slices.Collect(maps.Keys(watch.open))
	}
	return nil
}

// end ends streams of a session, and says how many of them were open. It waits for no
// client.
func (s *streams[T]) end(name string, which []*openStream[T], why streamEnd) (ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		return 0
	}
	for _, stream := range which {
		if _, open := watch.open[stream]; open {
			delete(watch.open, stream)
			go stream.end(why) // ends with the stream
			ended++
		}
	}
	s.dropEmpty(name, watch)
	return ended
}

// endAll ends all streams.
func (s *streams[T]) endAll(why streamEnd) {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	for _, name := range names {
		s.end(name, s.of(name), why)
	}
}
