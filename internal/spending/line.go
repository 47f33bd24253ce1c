package spending

import (
	"context"
	"hash/maphash"
	"sync"
)

// lines lets requests of one user that need a reading go on in the order in which they
// came, one at a time. Requests of other users do not wait for them.
type lines struct {
	seed   maphash.Seed
	shards [shards]lineShard
}

// lineShard has the lines of some of the users. A user without waiting requests has none.
type lineShard struct {
	mu    sync.Mutex // guards what follows
	users map[string]*line
}

// line is the requests of one user behind the one that goes on now.
type line struct{ waiting []chan struct{} }

func newLines() *lines {
	l := &lines{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].users = map[string]*line{}
	}
	return l
}

func (l *lines) shard(user string) *lineShard { return &l.shards[maphash.String(l.seed, user)%shards] }

// exists reports whether a request of the user waits. A new one goes behind it.
func (l *lines) exists(user string) bool {
	s := l.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[user] != nil
}

// enter waits until no earlier request of the user is left. The caller calls leave, unless
// enter returns an error because ctx has ended.
func (l *lines) enter(ctx context.Context, user string) error {
	s := l.shard(user)
	s.mu.Lock()
	waiting := s.users[user]
	if waiting == nil {
		s.users[user] = &line{}
		s.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	waiting.waiting = append(waiting.waiting, turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !s.withdraw(user, turn) { // its turn has come meanwhile
		l.leave(user)
	}
	return ctx.Err()
}

// withdraw takes a request out of its line. It returns false if its turn has come.
func (s *lineShard) withdraw(user string, turn chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.users[user]
	if waiting == nil {
		return false
	}
	for i, other := range waiting.waiting {
		if other == turn {
			waiting.waiting = append(waiting.waiting[:i], waiting.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// leave lets the next request of the user go on.
func (l *lines) leave(user string) {
	s := l.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.users[user]
	if len(waiting.waiting) == 0 {
		delete(s.users, user)
		return
	}
	close(waiting.waiting[0])
	waiting.waiting = waiting.waiting[1:]
}
