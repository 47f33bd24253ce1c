//go:build unix

package secretfiles

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func TestANamedPipeIsNotRead(t *testing.T) {
	s := newSite(t, "first")
	s.looks(1, 0)
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(s.file, 0o600); err != nil {
		t.Fatal(err)
	}
	looked := make(chan struct{})
	go func() { // ends when the looks are done; to read the pipe would take for ever
		defer close(looked)
		s.looks(3, 0)
	}()
	select {
	case <-looked:
	case <-time.After(30 * time.Second):
		t.Fatal("a look at a named pipe does not end")
	}
	s.want("first", errNoFile.Error())
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	s.write("second")
	s.looks(2, 0)
	s.want("second", errNoFile.Error(), "replaced")
}
