package browser

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// A login loop: a browser that does not keep the session cookie comes back without
// it, is sent to the provider, which signs it in at once, and comes back again. So
// each sign-in leaves a short-lived cookie that counts those of this browser on the
// way to one page, and the browser that brings the count along, but no session, has
// lost it in between.
const (
	loopWindow = 30 * time.Second
	// LoopLogins is the sign-in that ends on a page instead. A real loop gets there in
	// a second or two; a person whose session is ended time and again does not.
	LoopLogins = 5
)

// Recent is what that cookie says.
type Recent struct {
	Count  int
	target string // of the return path, hashed
}

func targetOf(returnPath string) string {
	sum := sha256.Sum256([]byte(returnPath))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

// parseRecentLogins reads the cookie. Whatever else it holds counts as none.
func parseRecentLogins(value string) Recent {
	number, target, _ := strings.Cut(value, ".")
	count, err := strconv.Atoi(number)
	if err != nil || count < 0 || count > LoopLogins {
		return Recent{}
	}
	return Recent{count, target}
}

// Next counts one more sign-in on the way to a page.
func (l Recent) Next(returnPath string) Recent {
	target := targetOf(returnPath)
	if l.target != target {
		return Recent{1, target}
	}
	return Recent{min(l.Count+1, LoopLogins), target}
}

func (l Recent) IsLoop() bool { return l.Count >= LoopLogins }

func (l Recent) String() string { return strconv.Itoa(l.Count) + "." + l.target }
