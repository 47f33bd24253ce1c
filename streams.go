package tollgate

import (
	"net/http"
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
	// streamRefused: the provider does not call the user active any more.
	streamRefused = streamEnd{4403, "refused"}
	// streamGoingAway: the gateway stops, and nobody would end the stream any more.
	streamGoingAway = streamEnd{1001, "going away"}
)

// openStream is a WebSocket or an event stream that was opened with an identity.
type openStream struct {
	// handler opened it. After a reload it is a former one's.
	handler *Handler
	session *session
	// sent holds the session cookie that it was opened with, and asked the request.
	sent  sentCookies
	asked *http.Request
	// end ends it, and may wait for a slow client.
	end func(streamEnd)
}

// streams knows the open streams of each session, whichever configuration they were
// opened under. It takes as much memory as there are open connections.
type streams struct {
	mu      sync.Mutex
	watches map[string]*streamWatch // by the session's hash
}

// streamWatch is the open streams of one session, and the one timer at which the
// session is looked at again.
type streamWatch struct {
	open  map[*openStream]struct{}
	last  *openStream // the newest one's cookie is the newest
	timer *time.Timer
	due   time.Time
}

func newStreams() *streams { return &streams{watches: make(map[string]*streamWatch)} }

// add watches a stream. The session is looked at after the given time, unless it is
// watched already.
func (s *streams) add(stream *openStream, after time.Duration, look func(session string)) {
	name := stream.session.id.hash()
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		watch = &streamWatch{
			open:  make(map[*openStream]struct{}),
			timer: time.AfterFunc(after, func() { look(name) }),
			due:   time.Now().Add(after),
		}
		s.watches[name] = watch
	}
	watch.open[stream] = struct{}{}
	watch.last = stream
}

// remove forgets a stream that is over. With the last one the session's timer goes.
func (s *streams) remove(stream *openStream) {
	name := stream.session.id.hash()
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		return
	}
	delete(watch.open, stream)
	switch {
	case len(watch.open) == 0:
		s.drop(name, watch)
	case watch.last == stream:
		for other := range watch.open {
			watch.last = other
			break
		}
	}
}

// drop forgets a session. The lock is held.
func (s *streams) drop(name string, watch *streamWatch) {
	watch.timer.Stop()
	delete(s.watches, name)
}

// newest gives the stream of a session that speaks for all of them, or nil.
func (s *streams) newest(name string) *openStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok {
		return watch.last
	}
	return nil
}

// lookAfter sets when a session is looked at next.
func (s *streams) lookAfter(name string, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok {
		watch.due = time.Now().Add(after)
		watch.timer.Reset(after)
	}
}

// lookBefore has a session looked at within a time, if it is not due before.
func (s *streams) lookBefore(name string, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if watch, ok := s.watches[name]; ok && time.Until(watch.due) > after {
		watch.due = time.Now().Add(after)
		watch.timer.Reset(after)
	}
}

// end ends the streams of a session, and says how many there were. It waits for no
// client.
func (s *streams) end(name string, why streamEnd) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	watch, ok := s.watches[name]
	if !ok {
		return 0
	}
	s.drop(name, watch)
	for stream := range watch.open {
		go stream.end(why) // ends with the stream
	}
	return len(watch.open)
}

// endAll ends all streams.
func (s *streams) endAll(why streamEnd) {
	s.mu.Lock()
	names := make([]string, 0, len(s.watches))
	for name := range s.watches {
		names = append(names, name)
	}
	s.mu.Unlock()
	for _, name := range names {
		s.end(name, why)
	}
}

// lookInterval is how long a session is not looked at: a little less than the recheck
// interval, and by another part of it for each session, so that not all ask at once.
func lookInterval(recheck time.Duration, id sessionID) time.Duration {
	return recheck - recheck/5*time.Duration(id[0])/256
}
