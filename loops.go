package tollgate

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
	// loopLogins is the sign-in that ends on a page instead. A real loop gets there in
	// a second or two; a person whose session is ended time and again does not.
	loopLogins = 5
)

// recentLogins is what that cookie says.
type recentLogins struct {
	count  int
	target string // of the return path, hashed
}

func targetOf(returnPath string) string {
	sum := sha256.Sum256([]byte(returnPath))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

// parseRecentLogins reads the cookie. Whatever else it holds counts as none.
func parseRecentLogins(value string) recentLogins {
	number, target, _ := strings.Cut(value, ".")
	count, err := strconv.Atoi(number)
	if err != nil || count < 0 || count > loopLogins {
		return recentLogins{}
	}
	return recentLogins{count, target}
}

// next counts one more sign-in on the way to a page.
func (l recentLogins) next(returnPath string) recentLogins {
	target := targetOf(returnPath)
	if l.target != target {
		return recentLogins{1, target}
	}
	return recentLogins{min(l.count+1, loopLogins), target}
}

func (l recentLogins) isLoop() bool { return l.count >= loopLogins }

func (l recentLogins) String() string { return strconv.Itoa(l.count) + "." + l.target }
