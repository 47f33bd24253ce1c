package tollgate

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// streamPatience is how long the end of a WebSocket may take: for the upstream to
// finish the frame it is in, and for the client to take it and the close frame, and
// to close its side. Whoever takes longer is cut off.
const streamPatience = 3 * time.Second

// errStreamEnded: the gateway has ended the stream.
var errStreamEnded = errors.New("the stream was ended together with its session")

// webSocketConn is the client's side of a WebSocket that the gateway can end between
// two frames, with a close frame that says why. In the middle of a frame a close frame
// would be taken for a part of the message.
type webSocketConn struct {
	net.Conn
	// hangUp ends the upstream's side.
	hangUp func()
	// closed is told once, when nobody uses the connection any more.
	closed func()
	once   sync.Once
	// said: the close frame is written, or cannot be. Nothing comes after it.
	said atomic.Bool

	mu     sync.Mutex // guards what follows, and writing
	frames frameReader
	why    *streamEnd // set: end it after the current frame
}

// Write implements net.Conn.
func (c *webSocketConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.said.Load():
		return 0, errStreamEnded
	case c.why != nil:
		n, err := c.Conn.Write(p[:c.frames.read(p)])
		if err == nil && !c.frames.between() {
			return n, nil
		}
		c.sayGoodbye(err == nil)
		return n, errStreamEnded
	}
	n, err := c.Conn.Write(p)
	for rest := p[:n]; len(rest) > 0; {
		rest = rest[c.frames.read(rest):]
	}
	return n, err
}

// end writes the close frame as soon as no other frame is under way, and closes the
// connection.
func (c *webSocketConn) end(why streamEnd) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(streamPatience)) // also for a write that hangs
	time.AfterFunc(streamPatience, func() {
		c.hangUp()
		_ = c.Conn.Close()
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = &why
	if c.frames.between() {
		c.sayGoodbye(true)
	}
}

// sayGoodbye writes the close frame, where it can be understood, and lets the
// upstream go. The lock is held.
func (c *webSocketConn) sayGoodbye(understood bool) {
	if c.said.Swap(true) {
		return
	}
	if understood {
		_, _ = c.Conn.Write(closeFrame(*c.why))
	}
	c.hangUp()
}

// Close implements net.Conn. After a close frame the client may be sending still; a
// connection that is closed with unread data is reset, and the client could lose the
// frame. So its side is read to its end first, for as long as streamPatience allows.
func (c *webSocketConn) Close() error {
	c.once.Do(c.closed)
	if !c.said.Load() { // without the lock: a write that hangs ends with this
		return c.Conn.Close()
	}
	if err := c.CloseWrite(); err != nil {
		return c.Conn.Close()
	}
	go func() { // ends when the client closes, or with the timer of end
		_, _ = io.Copy(io.Discard, c.Conn)
		_ = c.Conn.Close()
	}()
	return nil
}

// CloseWrite closes the client's reading half, where the connection has halves.
func (c *webSocketConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// closeFrame is a server's close frame (RFC 6455 section 5.5.1). It is never
// compressed.
func closeFrame(why streamEnd) []byte {
	const finalClose = 0x88
	frame := []byte{finalClose, byte(2 + len(why.reason))}
	frame = binary.BigEndian.AppendUint16(frame, why.code)
	return append(frame, why.reason...)
}

// frameReader follows the frames (RFC 6455 section 5.2) in what passes by, and knows
// nothing of what is in them.
type frameReader struct {
	header []byte // of the current frame, as far as it was read
	left   uint64 // bytes of the current frame's payload
}

// between reports whether no frame is under way.
func (f *frameReader) between() bool { return len(f.header) == 0 && f.left == 0 }

// read reads p up to the end of the current frame, and gives how much that is.
func (f *frameReader) read(p []byte) int {
	n := 0
	for f.left == 0 {
		if n == len(p) {
			return n
		}
		f.header = append(f.header, p[n])
		n++
		if payload, whole := payloadLength(f.header); whole {
			f.header, f.left = f.header[:0], payload
			if payload == 0 {
				return n
			}
		}
	}
	taken := min(f.left, uint64(len(p)-n))
	f.left -= taken
	return n + int(taken)
}

// payloadLength reads the length of a frame's payload, or false while its header is
// not whole.
func payloadLength(header []byte) (uint64, bool) {
	if len(header) < 2 {
		return 0, false
	}
	const masked = 0x80
	size, length := 2, uint64(header[1]&^masked)
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if header[1]&masked != 0 { // as no server may, but it must not lead us astray
		size += 4
	}
	if len(header) < size {
		return 0, false
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(header[2:]))
	case 127:
		length = binary.BigEndian.Uint64(header[2:])
	}
	return length, true
}
