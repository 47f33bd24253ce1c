package relay

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// MaxReplayedBody bounds in bytes what is kept of a request's body, so that it can be
// sent once more. A request takes up to that much memory until its answer is there.
const MaxReplayedBody = 1 << 20

// KeptBody is a request's body that can be read twice. It passes each piece on as it
// comes, and keeps what has passed: nothing waits for the end of a long upload.
type KeptBody struct {
	Source  io.Reader
	reading sync.Mutex // held while source is read, which may take long
	mu      sync.Mutex // guards all below
	kept    []byte
	end     error // what source ended with
	Lost    bool  // more has passed than is kept
	again   bool  // it is being read a second time
}

// BodyReader is one of the two readings of a KeptBody. Closing it leaves the source
// open for the other one: the server closes that when the request is over.
type BodyReader struct {
	*KeptBody
	First  bool
	at     int // the position in kept
	closed atomic.Bool
}

// Read implements io.Reader.
func (b *BodyReader) Read(p []byte) (int, error) {
	if n, done, err := b.readKept(p); done {
		return n, err
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	// The first reading may have been waiting for this very piece when it was given up.
	if n, done, err := b.readKept(p); done {
		return n, err
	}
	n, err := b.Source.Read(p)
	b.note(p[:n], err)
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return n, err
}

// Close implements io.Closer.
func (b *BodyReader) Close() error {
	b.closed.Store(true)
	return nil
}

// readKept reads what has passed already. done is false when the source has to be
// asked.
func (b *BodyReader) readKept(p []byte) (n int, done bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed.Load():
		return 0, true, http.ErrBodyReadAfterClose
	case b.at < len(b.kept):
		n = copy(p, b.kept[b.at:])
		b.at += n
		return n, true, nil
	case b.end != nil:
		return 0, true, b.end
	}
	return 0, false, nil
}

// note keeps what the first reading has read from the source.
func (b *BodyReader) note(read []byte, end error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = end
	switch {
	case !b.First || b.Lost:
	case !b.again && len(b.kept)+len(read) > MaxReplayedBody:
		b.kept, b.Lost = nil, true
	default:
		b.kept = append(b.kept, read...)
		if !b.again {
			b.at = len(b.kept)
		}
	}
}

// forget keeps nothing any more: there will be no second reading.
func (b *BodyReader) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept, b.Lost = nil, true
}

// rewind gives up the first reading and begins the second. ok is false when too much
// has passed, or less than all though all is needed.
func (b *BodyReader) rewind(whole bool) (second *BodyReader, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Lost || whole && b.end == nil {
		return b, false
	}
	b.again = true
	b.closed.Store(true)
	return &BodyReader{KeptBody: b.KeptBody}, true
}
