package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// clientCloseFrame is a client's close frame without a code. The mask is of zeros.
var clientCloseFrame = []byte{0x88, 0x80, 0, 0, 0, 0}

// pipedWebSocket is a watched WebSocket without a network, of whose upstream it is only
// known whether it was let go.
type pipedWebSocket struct {
	*webSocketConn
	client net.Conn
	letGo  atomic.Bool
	// read is what the client has read. It is complete when ended is closed.
	read  bytes.Buffer
	ended chan struct{}
}

// newPipedWebSocket gives one whose client has sent these bytes already. The client
// reads all the time.
func newPipedWebSocket(sent ...byte) *pipedWebSocket {
	gateway, client := net.Pipe()
	p := &pipedWebSocket{client: client, ended: make(chan struct{})}
	p.webSocketConn = &webSocketConn{Conn: gateway, hangUp: func() { p.letGo.Store(true) }, closed: func() {}}
	p.fromClient.ReadAll(sent)
	go func() { // ends with the connection
		io.Copy(&p.read, client)
		close(p.ended)
	}()
	return p
}

func (p *pipedWebSocket) isOpen() bool {
	synctest.Wait()
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func TestWebSocketIsClosedAfterTheClientsCloseFrame(t *testing.T) {
	closeWithCode := append([]byte{0x88, 0x82, 1, 2, 3, 4}, 0x11^1, 0x31^2)
	for name, c := range map[string]struct {
		sent   []byte   // before the session ended
		pieces [][]byte // after our close frame
	}{
		"at once":                     {pieces: [][]byte{clientCloseFrame}},
		"with a code":                 {pieces: [][]byte{closeWithCode}},
		"byte by byte":                {pieces: slices.Collect(slices.Chunk(closeWithCode, 1))},
		"after a message":             {pieces: [][]byte{append([]byte{0x81, 0x81, 0, 0, 0, 0, 0x88}, clientCloseFrame...)}},
		"after the rest of a message": {sent: []byte{0x81, 0xfe, 0, 200, 0, 0, 0, 0, 0x88}, pieces: [][]byte{make([]byte, 199), clientCloseFrame}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipedWebSocket(c.sent...)
				began := time.Now()
				p.End(SessionOver)
				p.Close() // as reverse_proxy does when its upstream is gone
				for _, piece := range c.pieces {
					if !p.isOpen() {
						t.Fatal("the connection is closed before the client's close frame has come")
					}
					p.client.Write(piece)
				}
				if p.isOpen() || time.Since(began) != 0 {
					t.Errorf("the connection is open after the client's close frame")
				}
				if got := p.read.Bytes(); !bytes.Equal(got, closeFrame(SessionOver)) || !p.letGo.Load() {
					t.Errorf("the client was told %q; the upstream is gone: %t", got, p.letGo.Load())
				}
			})
		})
	}
}

func TestWebSocketIsCutWhenTheClientDoesNotAnswer(t *testing.T) {
	for name, answer := range map[string][]byte{
		"nothing":             nil,
		"a message":           {0x81, 0x82, 0, 0, 0, 0, 0x88, 0x80},
		"half a close frame":  {0x88, 0x82, 0, 0, 0, 0, 3},
		"a long frame's head": {0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipedWebSocket()
				p.End(SessionOver)
				p.Close()
				p.client.Write(answer)
				time.Sleep(closeTimeout - time.Millisecond)
				if !p.isOpen() {
					t.Errorf("the connection is cut after less than %v", closeTimeout)
				}
				time.Sleep(time.Millisecond)
				if p.isOpen() {
					t.Errorf("the connection is open after %v", closeTimeout)
				}
			})
		})
	}
}

// Both sides may want to close at the same time.
func TestWebSocketThatIsClosingGetsNoSecondcloseFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipedWebSocket(clientCloseFrame...)
		upstreams := closeFrame(End{Code: 1000, Reason: "done"})
		p.Write(upstreams)
		p.End(SessionOver)
		p.Close()
		if p.isOpen() {
			t.Error("the connection is open, although both sides have sent their close frames")
		}
		if got := p.read.Bytes(); !bytes.Equal(got, upstreams) {
			t.Errorf("the client was told %q, want %q", got, upstreams)
		}
	})
}

func TestNothingReachesTheUpstreamAfterThecloseFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipedWebSocket()
		type outcome struct {
			n   int
			err error
		}
		read := make(chan outcome, 1)
		go func() { // ends with what the client sends
			n, err := p.Read(make([]byte, 100))
			read <- outcome{n, err}
		}()
		synctest.Wait()
		p.End(SessionOver)
		p.client.Write([]byte{0x81, 0x81, 0, 0, 0, 0, 'x'})
		if got := <-read; got.n != 0 || !errors.Is(got.err, errStreamEnded) {
			t.Errorf("reverse_proxy reads %d bytes, error %v", got.n, got.err)
		}
		p.Close()
		p.client.Close()
		p.isOpen()
	})
}
