package tollgate

import (
	"time"

	"github.com/maypok86/otter/v2"
)

// A login loop: a browser that does not keep the session cookie comes back without
// it, is sent to the provider, which signs it in at once, and comes back again. No
// cookie can count that, so the sign-ins of one user for one page are counted here.
const (
	loopWindow  = 30 * time.Second
	loopLogins  = 6 // so many within the window: more than a person opens tabs
	maxLoopKeys = 10_000
)

// loginLoops counts recent sign-ins.
type loginLoops struct {
	recent *otter.Cache[loopKey, int]
}

// loopKey is one user on the way to one page in one kind of browser.
type loopKey struct {
	user       string
	userAgent  string
	returnPath string
}

func newLoginLoops() *loginLoops {
	return &loginLoops{recent: otter.Must(&otter.Options[loopKey, int]{
		MaximumSize:      maxLoopKeys,
		ExpiryCalculator: otter.ExpiryCreating[loopKey, int](loopWindow),
	})}
}

// isLoop counts one more sign-in, and reports whether there were too many.
func (l *loginLoops) isLoop(key loopKey) bool {
	if len(key.userAgent) > maxField {
		key.userAgent = key.userAgent[:maxField]
	}
	count, _ := l.recent.Compute(key, func(count int, _ bool) (int, otter.ComputeOp) {
		return count + 1, otter.WriteOp
	})
	return count > loopLogins
}

func (l *loginLoops) close() { l.recent.StopAllGoroutines() }
