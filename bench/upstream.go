package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
)

// serveUpstream serves a minimal upstream, and writes its address to answers. It parses as
// little of a request as possible: all processes share the cores, so that the cost of the
// upstream would hide what is measured.
func serveUpstream(answers io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(answers, "ok %s\n", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go serveConnection(conn)
	}
}

// maxMessage is the maximum size of the header of a request or response. Caddy's own limit
// for a request is 16 KiB.
const maxMessage = 32 << 10

var (
	headerEnd      = []byte("\r\n\r\n")
	userIDField    = []byte("\r\nX-User-Id: ")
	cookieField    = []byte("\r\nCookie: ")
	ownCookie      = []byte(cookieName + "=")
	errTooLong     = errors.New("the header is too long")
	errNotFinished = errors.New("the connection ended in the middle of a message")
)

// serveConnection serves requests without bodies until the connection ends.
func serveConnection(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, maxMessage)
	answer := make([]byte, 0, 256)
	for filled := 0; ; {
		end, n, err := readHeader(conn, buffer, filled)
		if err != nil {
			return
		}
		answer = appendAnswer(answer[:0], buffer[:end])
		if _, err := conn.Write(answer); err != nil {
			return
		}
		filled = copy(buffer, buffer[end:n])
	}
}

// readHeader reads until a header is complete. filled bytes have been read already. It
// returns the end of the header, and the number of bytes read so far.
func readHeader(r io.Reader, buffer []byte, filled int) (end, n int, err error) {
	for n = filled; ; {
		if i := bytes.Index(buffer[:n], headerEnd); i >= 0 {
			return i + len(headerEnd), n, nil
		}
		if n == len(buffer) {
			return 0, n, errTooLong
		}
		more, err := r.Read(buffer[n:])
		n += more
		if more == 0 && err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				err = errNotFinished
			}
			return 0, n, err
		}
	}
}

// nobody is the user of a request without an identity. It is as long as an id, so that all
// responses have the same length.
const nobody = "nobody "

// appendAnswer appends a response with the user of the request, and whether the session
// cookie arrived, so that the load generator can check it.
func appendAnswer(b, request []byte) []byte {
	user := []byte(nobody)
	if i := bytes.Index(request, userIDField); i >= 0 {
		user, _, _ = bytes.Cut(request[i+len(userIDField):], headerEnd[:2])
	}
	cookies := []byte(nil)
	if i := bytes.Index(request, cookieField); i >= 0 {
		cookies, _, _ = bytes.Cut(request[i+len(cookieField):], headerEnd[:2])
	}
	body := expectedAnswer(string(user), bytes.Contains(cookies, ownCookie))
	b = append(b, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: "...)
	b = append(b, byte('0'+len(body)/10), byte('0'+len(body)%10))
	b = append(b, headerEnd...)
	return append(b, body...)
}

// expectedAnswer returns the expected body of the upstream's response.
func expectedAnswer(user string, cookie bool) string {
	if cookie {
		return "user " + user + ", cookie sent\n"
	}
	return "user " + user + ", cookie kept\n"
}
