package relay

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// CloseTimeout is how long the end of a WebSocket may take: for the upstream to
// finish the frame that it is sending, for the client to read it together with our
// close frame, and for the client to answer with a close frame of its own. After that
// the connection is cut.
const CloseTimeout = 3 * time.Second

// ErrStreamEnded: the gateway has ended the stream.
var ErrStreamEnded = errors.New("the stream was ended together with its session")

// WebSocketConn is the client's side of a WebSocket that the gateway can end between
// two frames, with a close frame that says why. In the middle of a frame a close frame
// would be taken for a part of the message.
//
// The connection is closed only after the client's own close frame, as RFC 6455
// section 7.1.1 wants it. To a browser that sees the end of the connection first, such
// as Firefox, the WebSocket was not closed cleanly.
type WebSocketConn struct {
	net.Conn
	// HangUp ends the upstream's side.
	HangUp func()
	// Closed is told once, when nobody uses the connection any more.
	Closed func()
	once   sync.Once
	// said: the close frame is written, or cannot be. Nothing comes after it.
	said atomic.Bool

	mu     sync.Mutex // guards what follows, and writing
	frames frameReader
	why    *End // set: end it after the current frame

	reading    sync.Mutex // guards what follows, and reading
	FromClient frameReader
}

// Read implements net.Conn. What the client sends after our close frame reaches no
// upstream.
func (c *WebSocketConn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if c.said.Load() {
		return 0, ErrStreamEnded
	}
	return n, err
}

// read reads from the client, and follows its frames. After both sides have sent a
// close frame it gives io.EOF.
func (c *WebSocketConn) read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.FromClient.closed && c.said.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	c.FromClient.ReadAll(p[:n])
	return n, err
}

// Write implements net.Conn.
func (c *WebSocketConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.said.Load():
		return 0, ErrStreamEnded
	case c.why != nil:
		n, err := c.Conn.Write(p[:c.frames.read(p)])
		if err == nil && !c.frames.between() {
			return n, nil
		}
		c.sayGoodbye(err == nil)
		return n, ErrStreamEnded
	}
	n, err := c.Conn.Write(p)
	c.frames.ReadAll(p[:n])
	return n, err
}

// End writes the close frame as soon as no other frame is under way, and closes the
// connection.
func (c *WebSocketConn) End(why End) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(CloseTimeout)) // also for a write that hangs
	time.AfterFunc(CloseTimeout, func() {
		c.HangUp()
		_ = c.Conn.Close()
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = &why
	if c.frames.between() {
		c.sayGoodbye(true)
	}
}

// sayGoodbye writes the close frame, where it can be understood and the upstream has
// not sent one already, and lets the upstream go. The lock is held.
func (c *WebSocketConn) sayGoodbye(understood bool) {
	if c.said.Swap(true) {
		return
	}
	if understood && !c.frames.closed {
		_, _ = c.Conn.Write(CloseFrame(*c.why))
	}
	c.HangUp()
}

// Close implements net.Conn. After our close frame the client's side is read up to its
// close frame first, for as long as CloseTimeout allows. Closing earlier would lose
// our close frame, too: a connection that is closed with unread data is reset.
func (c *WebSocketConn) Close() error {
	c.once.Do(c.Closed)
	if !c.said.Load() { // without the lock: a write that hangs ends with this
		return c.Conn.Close()
	}
	go func() { // ends with the client's close frame, or with the timer of end
		rest := make([]byte, 512)
		for {
			if _, err := c.read(rest); err != nil {
				break
			}
		}
		_ = c.Conn.Close()
	}()
	return nil
}

// CloseWrite closes the client's reading half, where the connection has halves. After
// our close frame it waits for the client's, as Close does.
func (c *WebSocketConn) CloseWrite() error {
	if c.said.Load() {
		return nil
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// CloseFrame is a server's close frame (RFC 6455 section 5.5.1). It is never
// compressed.
func CloseFrame(why End) []byte {
	const finalClose = 0x88
	frame := []byte{finalClose, byte(2 + len(why.Reason))}
	frame = binary.BigEndian.AppendUint16(frame, why.Code)
	return append(frame, why.Reason...)
}

// frameReader follows the frames (RFC 6455 section 5.2) of one direction, and does not
// look at their content.
type frameReader struct {
	header  []byte // of the current frame, as far as it was read
	left    uint64 // bytes of the current frame's payload
	closing bool   // the current frame is a close frame
	closed  bool   // a whole close frame was read
}

// between reports whether no frame is under way.
func (f *frameReader) between() bool { return len(f.header) == 0 && f.left == 0 }

// ReadAll reads all of p, over as many frames as there are.
func (f *frameReader) ReadAll(p []byte) {
	for len(p) > 0 {
		p = p[f.read(p):]
	}
}

// read reads p up to the end of the current frame, and gives how much that is.
func (f *frameReader) read(p []byte) int {
	const opcode, closeOpcode = 0x0f, 0x8
	n := 0
	for f.left == 0 {
		if n == len(p) {
			return n
		}
		f.header = append(f.header, p[n])
		n++
		if payload, whole := payloadLength(f.header); whole {
			f.closing = f.header[0]&opcode == closeOpcode
			f.header, f.left = f.header[:0], payload
			if payload == 0 {
				f.closed = f.closed || f.closing
				return n
			}
		}
	}
	taken := min(f.left, uint64(len(p)-n))
	f.left -= taken
	f.closed = f.closed || f.closing && f.left == 0
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
	if header[1]&masked != 0 { // as each frame of a client is, and none of a server may be
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
