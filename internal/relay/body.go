package relay

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// maxReplayedBody is the maximum size in bytes of a request body that is kept so that it can
// be sent again. A request takes up to that much memory until its response arrives.
const maxReplayedBody = 1 << 20

// keptBody is a request body that can be read twice. It passes each piece on when it
// arrives, and keeps a copy. So a long upload is not delayed until its end.
type keptBody struct {
	Source  io.Reader
	reading sync.Mutex // held while Source is read, which may take long
	mu      sync.Mutex // guards all below
	kept    []byte
	end     error // the error that Source ended with
	Lost    bool  // the copy is incomplete: the body was longer than maxReplayedBody
	again   bool  // the body is read a second time
}

// bodyReader is one of the two readers of a keptBody. Closing it does not close the source,
// which the other reader may need. The server closes it when the request is over.
type bodyReader struct {
	*keptBody
	First  bool
	at     int // the position in the copy
	closed atomic.Bool
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	if n, done, err := b.readKept(p); done {
		return n, err
	}
	b.reading.Lock()
	defer b.reading.Unlock()
	// The first reader may have been waiting for this piece when it was given up.
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
func (b *bodyReader) Close() error {
	b.closed.Store(true)
	return nil
}

// readKept reads from the copy. done is false if the source has to be read.
func (b *bodyReader) readKept(p []byte) (n int, done bool, err error) {
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

// note adds to the copy what the first reader has read from the source.
func (b *bodyReader) note(read []byte, end error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = end
	switch {
	case !b.First || b.Lost:
	case !b.again && len(b.kept)+len(read) > maxReplayedBody:
		b.kept, b.Lost = nil, true
	default:
		b.kept = append(b.kept, read...)
		if !b.again {
			b.at = len(b.kept)
		}
	}
}

// forget frees the copy. The body cannot be read a second time after that.
func (b *bodyReader) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept, b.Lost = nil, true
}

// rewind gives up the first reader and returns the second. ok is false if the copy is
// incomplete, or if whole is true and the source has not ended yet.
func (b *bodyReader) rewind(whole bool) (second *bodyReader, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Lost || whole && b.end == nil {
		return b, false
	}
	b.again = true
	b.closed.Store(true)
	return &bodyReader{keptBody: b.keptBody}, true
}
