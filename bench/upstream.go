package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
)

// serveUpstream serves the smallest upstream there is, and says on answers where.
// It parses no more of a request than it needs: on a machine where everything shares
// the cores, what the upstream costs only hides what is to be measured.
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

// maxMessage bounds a request's or an answer's header. Caddy's own limit for a
// request is 16 KiB.
const maxMessage = 32 << 10

var (
	headerEnd      = []byte("\r\n\r\n")
	userIDField    = []byte("\r\nX-User-Id: ")
	cookieField    = []byte("\r\nCookie: ")
	ownCookie      = []byte(cookieName + "=")
	errTooLong     = errors.New("the header is too long")
	errNotFinished = errors.New("the connection ended within a message")
)

// serveConnection answers requests without bodies until the connection ends.
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

// readHeader reads on, with filled bytes there already, until a header is complete.
// It gives the header's end and how many bytes there are now.
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

// nobody is the user of a request that carries no identity. It is as long as the
// ids are, so that every answer is.
const nobody = "nobody "

// appendAnswer says whose request it was and whether the session cookie came
// through, so that the load generator can tell a right answer from a fast one.
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

// expectedAnswer is the body of the upstream's answer.
func expectedAnswer(user string, cookie bool) string {
	if cookie {
		return "user " + user + ", cookie sent\n"
	}
	return "user " + user + ", cookie kept\n"
}
