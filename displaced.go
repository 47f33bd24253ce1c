package tollgate

import (
	"net/http"

	"github.com/caddy-tollgate/tollgate/internal/browser"
)

// noteDisplaced remembers that the browser has been given something else in the place of
// the session cookie that its request brought. It reports whether that is news.
func (h *Handler) noteDisplaced(v *visit) bool {
	hash, ok := v.sent.SessionHash()
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
	v.deletions = []string{h.cookies.Remove(h.cookies.Name)}
	if v.sent.HasSecond {
		v.deletions = append(v.deletions, h.cookies.Remove(h.cookies.Name+browser.SecondChunk))
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
