package browser

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

const (
	// loopWindow is how long a sign-in counts as recent.
	loopWindow = 30 * time.Second
	// loopLogins is the number of recent sign-ins from which on the gateway shows a page
	// instead of starting another one. A real loop reaches it in a second or two. A person
	// whose session is ended repeatedly does not.
	loopLogins = 5
)

// Recent is the count of recent sign-ins that led to the same page. It detects login loops.
//
// In a login loop the browser does not keep the session cookie: it returns without it, is
// redirected to the provider, is signed in there at once, and returns again. Therefore each
// sign-in sets a short-lived cookie with this count. A browser that sends the count but no
// session has lost the session in between.
type Recent struct {
	Count  int
	target string // hash of the return path
}

func targetOf(returnPath string) string {
	sum := sha256.Sum256([]byte(returnPath))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

// parseRecentLogins reads the cookie's value. An invalid value counts as no sign-in.
func parseRecentLogins(value string) Recent {
	number, target, _ := strings.Cut(value, ".")
	count, err := strconv.Atoi(number)
	if err != nil || count < 0 || count > loopLogins {
		return Recent{}
	}
	return Recent{count, target}
}

// Next returns the count after one more sign-in that leads to returnPath. The count starts
// again at 1 if the previous sign-ins led to another page.
func (l Recent) Next(returnPath string) Recent {
	target := targetOf(returnPath)
	if l.target != target {
		return Recent{1, target}
	}
	return Recent{min(l.Count+1, loopLogins), target}
}

// IsLoop reports whether the count has reached loopLogins.
func (l Recent) IsLoop() bool { return l.Count >= loopLogins }

// String returns the value of the cookie.
func (l Recent) String() string { return strconv.Itoa(l.Count) + "." + l.target }
