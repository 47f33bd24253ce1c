package secretfiles

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// site is a secret from a file, and what happened to it.
type site struct {
	t       *testing.T
	file    string
	value   string   // in use
	refused string   // a value that cannot be put into use
	events  []string // "replaced", or an error
	reads   int
	watched *watched
}

func newSite(t *testing.T, text string) *site {
	t.Helper()
	s := &site{t: t, file: filepath.Join(t.TempDir(), "secret"), value: text}
	s.write(text)
	s.watched = &watched{due: true, Secret: Secret{Option: "secret", Files: []string{s.file}, Read: func() (Use, error) {
		s.reads++
		text, err := os.ReadFile(s.file)
		if err == nil && len(text) < 4 {
			err = errors.New("is too short")
		}
		return func(context.Context) (bool, error) {
			if string(text) == s.refused {
				return false, errors.New("is refused")
			}
			changed := s.value != string(text)
			s.value = string(text)
			return changed, nil
		}, err
	}}}
	s.watched.seen = look(s.watched.Files)
	return s
}

func (s *site) Replaced(string)          { s.events = append(s.events, "replaced") }
func (s *site) Kept(_ string, err error) { s.events = append(s.events, err.Error()) }

func (s *site) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// looks looks at the files several times, at the given time after the start.
func (s *site) looks(n int, at time.Duration) {
	for range n {
		s.watched.check(s.t.Context(), s, time.Unix(0, 0).Add(at))
	}
}

func (s *site) want(value string, events ...string) {
	s.t.Helper()
	if s.value != value || !slices.Equal(s.events, events) {
		s.t.Fatalf("got %q in use and %q, want %q and %q", s.value, s.events, value, events)
	}
}

func TestAChangedFileIsUsedWhenItIsComplete(t *testing.T) {
	s := newSite(t, "first")
	s.looks(3, 0)
	s.want("first")
	if s.reads != 1 {
		t.Errorf("got %d reads of a file that does not change, want 1", s.reads)
	}
	s.write("second, which is half wr")
	s.looks(1, 0) // sees that something changes
	s.write("second, which is half written")
	s.looks(1, 0)
	s.want("first")
	s.looks(1, 0)
	s.want("second, which is half written", "replaced")
}

func TestAFileThatChangedWhileTheSiteStartedIsUsed(t *testing.T) {
	s := newSite(t, "first")
	s.value = "before"
	s.looks(1, 0)
	s.want("first", "replaced")
}

func TestAFileThatCannotBeUsedReplacesNothing(t *testing.T) {
	s := newSite(t, "first")
	s.refused = "refused"
	s.looks(1, 0)
	s.write("")
	s.looks(5, 0)
	s.want("first", "is too short")
	s.looks(1, reminder)
	s.want("first", "is too short", "is too short")
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	s.looks(5, reminder)
	if s.value != "first" || len(s.events) != 3 || !strings.Contains(s.events[2], "no such file") {
		t.Fatalf("without the file: got %q, %q", s.value, s.events)
	}
	s.events = nil
	s.write("refused")
	s.looks(5, reminder)
	s.want("first", "is refused")
	s.refused = "" // now it can be used: the file need not change again
	s.looks(1, reminder)
	s.want("refused", "is refused", "replaced")
}

func TestALinkThatPointsElsewhereIsAChange(t *testing.T) {
	s := newSite(t, "first")
	folder := filepath.Dir(s.file)
	for _, version := range []string{"first", "other"} { // of one size
		if err := os.Mkdir(filepath.Join(folder, version), 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(folder, version, "secret")
		if err := errors.Join(os.WriteFile(file, []byte(version), 0o600), os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0))); err != nil {
			t.Fatal(err)
		}
	}
	point := func(version string) {
		data := filepath.Join(folder, "data")
		if err := errors.Join(os.Symlink(version, data+".next"), os.Rename(data+".next", data)); err != nil {
			t.Fatal(err)
		}
	}
	point("first")
	s.file = filepath.Join(folder, "data", "secret")
	s.watched.Files = []string{s.file}
	s.looks(3, 0)
	s.want("first")
	point("other")
	s.looks(2, 0)
	s.want("other", "replaced")
}

func TestTheWatcherEndsWhenItIsStopped(t *testing.T) {
	s := newSite(t, "first")
	s.value = "before"
	read := make(chan bool, 1)
	secret := s.watched.Secret
	secret.Read = func() (Use, error) {
		select {
		case read <- true:
		default:
		}
		return s.watched.Read()
	}
	w := Watch(time.Millisecond, s, secret)
	<-read
	w.Stop()
	select {
	case <-w.done:
	default:
		t.Error("the goroutine goes on")
	}
	(*Watcher)(nil).Stop()
	Watch(time.Hour, s).Stop()
}
