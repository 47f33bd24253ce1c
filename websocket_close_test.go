package tollgate_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// clientCloseFrame is a client's close frame without a status code. All bytes of its mask are 0.
var clientCloseFrame = []byte{0x88, 0x80, 0, 0, 0, 0}

// Firefox reports a clean close only if the server waits for the client's close frame.
func TestClosingAWebSocketWaitsForTheClientOverTheNetwork(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	conn := dial(t, s)
	fmt.Fprintf(conn, "GET /stream/ws HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n\r\n", b.CookieLine())
	reader := bufio.NewReader(conn)
	if res, err := http.ReadResponse(reader, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	wantStreams(s, 1)
	b.Send("POST", "/oauth/logout", nil)
	frame := make([]byte, 2+2+len("session ended"))
	if _, err := io.ReadFull(reader, frame); err != nil || binary.BigEndian.Uint16(frame[2:]) != 4401 {
		t.Fatalf("read %q, %v", frame, err)
	}
	conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := reader.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection ends before the client has answered: %v", err)
	}
	if _, err := conn.Write(clientCloseFrame); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the answer the connection ends with %v, want EOF", err)
	}
	wantNothingLeft(s)
}
