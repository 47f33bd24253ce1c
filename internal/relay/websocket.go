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

// closeTimeout is how long the end of a WebSocket may take: for the upstream to
// finish the frame that it is sending, for the client to read it together with our
// close frame, and for the client to answer with a close frame of its own. After that
// the connection is cut.
const closeTimeout = 3 * time.Second

// errStreamEnded is the error of reads and writes after the gateway has ended the stream.
var errStreamEnded = errors.New("the stream was ended together with its session")

// webSocketConn is the client's side of a WebSocket. The gateway can end it between two
// frames, with a close frame that gives the reason. In the middle of a frame, a client
// would read a close frame as a part of the message.
//
// The connection is closed only after the client's own close frame (RFC 6455 section
// 7.1.1). If the connection ends earlier, browsers such as Firefox report that the
// WebSocket was not closed cleanly.
type webSocketConn struct {
	net.Conn
	// hangUp ends the upstream's side.
	hangUp func()
	// closed is called once, when the connection is not used any more.
	closed func()
	once   sync.Once
	// said is true if the close frame was written, or cannot be written. Nothing is
	// written after it.
	said atomic.Bool

	mu     sync.Mutex // guards writes, frames and why
	frames frameReader
	why    *End // if not nil: end the WebSocket after the current frame

	reading    sync.Mutex // guards reads and fromClient
	fromClient frameReader
}

// Read implements net.Conn. Bytes that the client sends after our close frame are not
// passed to the upstream.
func (c *webSocketConn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if c.said.Load() {
		return 0, errStreamEnded
	}
	return n, err
}

// read reads from the client, and follows its frames. After both sides have sent a
// close frame it returns io.EOF.
func (c *webSocketConn) read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.fromClient.closed && c.said.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p)
	c.fromClient.ReadAll(p[:n])
	return n, err
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
	c.frames.ReadAll(p[:n])
	return n, err
}

// End writes the close frame as soon as no other frame is under way, and closes the
// connection.
func (c *webSocketConn) End(why End) {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(closeTimeout)) // also for a write that hangs
	time.AfterFunc(closeTimeout, func() {
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

// sayGoodbye writes the close frame, and ends the upstream's side. It writes nothing if
// understood is false (a frame is incomplete) or if the upstream has sent a close frame
// already. The lock is held.
func (c *webSocketConn) sayGoodbye(understood bool) {
	if c.said.Swap(true) {
		return
	}
	if understood && !c.frames.closed {
		_, _ = c.Conn.Write(closeFrame(*c.why))
	}
	c.hangUp()
}

// Close implements net.Conn. If our close frame was sent, Close first reads up to the
// client's close frame, for at most closeTimeout. A connection that is closed with unread
// data is reset, and our close frame would be lost.
func (c *webSocketConn) Close() error {
	c.once.Do(c.closed)
	if !c.said.Load() { // without the lock, which a hanging write holds; Close ends that write
		return c.Conn.Close()
	}
	go func() { // ends with the client's close frame, or with the timer of End
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

// CloseWrite closes the direction to the client, if the connection can close one direction.
// After our close frame it does nothing, because Close waits for the client's close frame.
func (c *webSocketConn) CloseWrite() error {
	if c.said.Load() {
		return nil
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// closeFrame is a server's close frame (RFC 6455 section 5.5.1). It is never
// compressed.
func closeFrame(why End) []byte {
	const finalClose = 0x88
	frame := []byte{finalClose, byte(2 + len(why.Reason))}
	frame = binary.BigEndian.AppendUint16(frame, why.Code)
	return append(frame, why.Reason...)
}

// frameReader follows the frames (RFC 6455 section 5.2) of one direction, and does not
// look at their content.
type frameReader struct {
	header  []byte // the bytes read so far of the current frame's header
	left    uint64 // bytes of the current frame's payload
	closing bool   // the current frame is a close frame
	closed  bool   // a whole close frame was read
}

// between reports whether the position is between two frames.
func (f *frameReader) between() bool { return len(f.header) == 0 && f.left == 0 }

// ReadAll reads all of p, which may contain several frames.
func (f *frameReader) ReadAll(p []byte) {
	for len(p) > 0 {
		p = p[f.read(p):]
	}
}

// read reads p up to the end of the current frame, and returns the number of bytes read.
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

// payloadLength reads the length of a frame's payload. It returns false if the header is
// not complete.
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
	if header[1]&masked != 0 { // all frames of a client are masked, and no frame of a server
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
