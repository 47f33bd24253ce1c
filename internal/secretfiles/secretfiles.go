// Package secretfiles notices when files that contain secrets change, and puts the new
// secrets into use without a reload.
//
// It never replaces a secret that works with one that cannot be used. It neither knows what
// the secrets are for, nor logs. Begin with Watch.
package secretfiles

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

// Interval is how often the files are looked at. A look is one stat for each file.
const Interval = 2 * time.Second

// reminder is how often the same failure is reported again.
const reminder = 10 * time.Minute

// Secret is the value of one option, which comes from files.
type Secret struct {
	// Option is the name of the option in log lines, for example "provider.client_secret".
	Option string
	// Files are the files that the value is made of.
	Files []string
	// Read reads the value and checks it. Its error must not contain the value.
	Read func() (Use, error)
}

// Use puts a value that was read into use. changed is false if the value is in use already.
// With an error the previous value stays in use.
type Use func(ctx context.Context) (changed bool, err error)

// Log receives what happens to the secrets. Its methods are called by one goroutine.
type Log interface {
	// Replaced says that the value of an option was replaced.
	Replaced(option string)
	// Kept says that the files of an option have changed, and that the previous value stays
	// in use because of err.
	Kept(option string, err error)
}

// Watcher looks at the files of the secrets of one site until it is stopped.
type Watcher struct {
	stop context.CancelFunc
	done chan struct{} // is closed when the goroutine has ended
}

// Watch starts a goroutine that looks at the files of secrets now, and then at each interval
// until Stop. Without secrets it starts nothing.
func Watch(interval time.Duration, log Log, secrets ...Secret) *Watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &Watcher{stop, make(chan struct{})}
	if len(secrets) == 0 {
		close(w.done)
		return w
	}
	files := make([]*watched, 0, len(secrets))
	for _, s := range secrets {
		// A file may have changed after the start read it. So the first look reads it again.
		files = append(files, &watched{Secret: s, due: true, seen: look(s.Files)})
	}
	go func() { // ends with Stop
		defer close(w.done)
		timer := time.NewTicker(interval)
		defer timer.Stop()
		for {
			for _, f := range files {
				f.check(ctx, log, time.Now())
			}
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return w
}

// Stop ends the goroutine, and returns when it has ended. It may be called on a nil Watcher.
func (w *Watcher) Stop() {
	if w == nil {
		return
	}
	w.stop()
	<-w.done
}

// watched is a secret, and what is known of its files.
type watched struct {
	Secret
	// seen is the state of the files at the last look.
	seen []os.FileInfo
	// due is true if the files have changed since the value in use was read.
	due bool
	// failure is the error that was reported last, and reported is when.
	failure  string
	reported time.Time
}

// check looks at the files, and reads the secret again if they have changed. It waits until
// two looks see the same: between them a program may still be writing.
func (w *watched) check(ctx context.Context, log Log, now time.Time) {
	state := look(w.Files)
	settled := same(state, w.seen)
	w.seen = state
	if !settled {
		w.due = true
		return
	}
	if !w.due {
		return
	}
	if !areFiles(state) {
		w.report(log, errNoFile, now)
		return
	}
	use, err := w.Read()
	if !same(look(w.Files), state) {
		return // a program is writing just now; the next look tries again
	}
	changed := false
	if err == nil {
		changed, err = use(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		w.report(log, err, now)
		return
	case changed:
		log.Replaced(w.Option)
	}
	w.due, w.failure = false, ""
}

// errNoFile is the error for a named pipe, a device or a folder. To read a pipe could take for
// ever, and Stop would wait for it.
var errNoFile = errors.New("must be a regular file, and not a named pipe, a device or a folder")

// areFiles reports whether everything that a look has found is a regular file.
func areFiles(state []os.FileInfo) bool {
	return !slices.ContainsFunc(state, func(info os.FileInfo) bool { return info != nil && !info.Mode().IsRegular() })
}

// report reports a failure once, and again after a while.
func (w *watched) report(log Log, err error, now time.Time) {
	if err.Error() == w.failure && now.Sub(w.reported) < reminder {
		return
	}
	w.failure, w.reported = err.Error(), now
	log.Kept(w.Option, err)
}

// look returns the state of files. It is nil for a file that cannot be read now. It follows
// symbolic links, because Kubernetes changes a secret by pointing a link at another folder.
func look(files []string) []os.FileInfo {
	state := make([]os.FileInfo, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			state[i] = info
		}
	}
	return state
}

// same reports whether two looks saw the same files, unchanged.
func same(a, b []os.FileInfo) bool {
	for i := range a {
		switch {
		case a[i] == nil || b[i] == nil:
			if a[i] != nil || b[i] != nil {
				return false
			}
		case !os.SameFile(a[i], b[i]), a[i].Size() != b[i].Size(), !a[i].ModTime().Equal(b[i].ModTime()):
			return false
		}
	}
	return true
}
