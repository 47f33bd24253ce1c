package tollgate

import (
	"crypto/sha256"
	"net/http"
)

// A session that has ended leaves its cookie in the browser, with sealed tokens in it
// where the cookie is the whole session. The answer that denies a request deletes it.
//
// That answer may be late: while a request waits for its refresh, another tab of the same
// browser may have signed in again, and the deletion would then hit the new session's
// cookie, since a deletion names no value. So this process remembers for a while which
// values it has deleted or replaced, and deletes each of them once only. What remains is
// the time that an answer is on its way, and other gateways.
//
// Only a value that this site has sealed is deleted. Any other one may belong to another
// site of the same host and cookie name.

// valueHash names a cookie value in that memory.
type valueHash [sha256.Size]byte

// sessionHash names the session cookie that a request brought, or reports false when it
// brought none that can be read.
func (s *sentCookies) sessionHash() (hash valueHash, ok bool) {
	value, ok := s.sessionValue()
	if !ok {
		return valueHash{}, false
	}
	return sha256.Sum256([]byte(value)), true
}

// noteDisplaced remembers that the browser has been given something else in the place of
// the session cookie that its request brought. It reports whether that is news.
func (h *Handler) noteDisplaced(v *visit) bool {
	hash, ok := v.sent.sessionHash()
	if !ok {
		return false
	}
	_, first := h.state.displaced.SetIfAbsent(hash, struct{}{})
	return first
}

// deadCookies gives the Set-Cookie values that delete the cookie of a session that has
// ended, or nothing. It may be asked more than once for an answer.
func (h *Handler) deadCookies(v *visit) []string {
	if !v.dead || v.deletions != nil || !h.noteDisplaced(v) {
		return v.deletions
	}
	v.deletions = []string{h.cookies.remove(h.cookies.name)}
	if v.sent.hasSecond {
		v.deletions = append(v.deletions, h.cookies.remove(h.cookies.name+secondChunk))
	}
	return v.deletions
}

// deleteDead has an answer that denies a request delete the cookie of a session that has
// ended.
func (h *Handler) deleteDead(w http.ResponseWriter, v *visit) {
	for _, cookie := range h.deadCookies(v) {
		w.Header().Add("Set-Cookie", cookie)
	}
}
