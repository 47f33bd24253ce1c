package tollgate

import (
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// identityHeader is one header that tells the upstream who the user is.
type identityHeader struct {
	name  string // canonical
	value identityValue
}

// identityValue is what a header of a preset carries.
type identityValue int

const (
	valueID identityValue = iota
	valueUsername
	valueEmail
	valueBalance
	valueQuota
	valueUsedQuota
	valueBalanceAge
	valueBalanceState
)

// identityPresets are the header sets that applications already understand.
var identityPresets = map[string][]identityHeader{
	"default": {
		{"X-User-Id", valueID},
		{"X-User-Name", valueUsername},
		{"X-User-Email", valueEmail},
		{"X-User-Balance", valueBalance},
		{"X-User-Quota", valueQuota},
		{"X-User-Used-Quota", valueUsedQuota},
		{"X-User-Balance-Age", valueBalanceAge},
		{"X-User-Balance-State", valueBalanceState},
	},
	"webauth": {
		{"X-Webauth-User", valueUsername},
		{"X-Webauth-Email", valueEmail},
		{"X-Webauth-Name", valueUsername},
	},
	"remote": {
		{"Remote-User", valueUsername},
		{"Remote-Name", valueUsername},
		{"Remote-Email", valueEmail},
	},
	"forwarded": {
		{"X-Forwarded-User", valueID},
		{"X-Forwarded-Email", valueEmail},
		{"X-Forwarded-Preferred-Username", valueUsername},
	},
	"auth_request": {
		{"X-Auth-Request-User", valueID},
		{"X-Auth-Request-Email", valueEmail},
		{"X-Auth-Request-Preferred-Username", valueUsername},
	},
	"none": nil,
}

// ownHeader is a header of the operator's own, with placeholders.
type ownHeader struct {
	name     string // canonical
	template string
}

// identityHeaders is the one list of everything that tells the upstream who the
// user is: what is set stands here, and what is removed follows from it.
type identityHeaders struct {
	preset []identityHeader
	own    []ownHeader
	// assertion names the header with the signed identity; empty: there is none.
	assertion string
	// token is the header that carries the access token, or empty.
	token  string
	folded map[string]struct{}
	// begins holds the bytes that a name of ours may begin with: most of a request's
	// headers are none of ours for that alone.
	begins [256]bool
}

// newIdentityHeaders puts presets and own headers together. An own header of the
// same name takes the preset's place.
func newIdentityHeaders(presets []string, own map[string]string) (*identityHeaders, error) {
	h := &identityHeaders{folded: make(map[string]struct{})}
	for name, template := range own {
		if !isHeaderName(name) {
			return nil, fmt.Errorf("%q is not a header name", name)
		}
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		if isReservedHeader(canonical) {
			return nil, fmt.Errorf("%s cannot carry the identity: it steers the request itself", canonical)
		}
		if _, taken := h.folded[foldName(canonical)]; taken {
			return nil, fmt.Errorf("%s is given twice", canonical)
		}
		h.own = append(h.own, ownHeader{canonical, template})
		h.folded[foldName(canonical)] = struct{}{}
	}
	defer h.noteBeginnings()
	slices.SortFunc(h.own, func(a, b ownHeader) int { return strings.Compare(a.name, b.name) })
	for _, preset := range presets {
		headers, known := identityPresets[preset]
		if !known {
			return nil, fmt.Errorf("unknown preset %q", preset)
		}
		for _, header := range headers {
			if _, taken := h.folded[foldName(header.name)]; !taken {
				h.preset = append(h.preset, header)
				h.folded[foldName(header.name)] = struct{}{}
			}
		}
	}
	return h, nil
}

func (h *identityHeaders) noteBeginnings() {
	for c := range len(h.begins) {
		first := appendFolded(nil, string([]byte{byte(c)}))
		for folded := range h.folded {
			h.begins[c] = h.begins[c] || folded[0] == first[0]
		}
	}
}

// isReservedHeader names the headers that frame or route a request; one of them
// as an identity header would break the request, or be dropped on the way.
func isReservedHeader(canonical string) bool {
	switch canonical {
	case "Connection", "Content-Length", "Cookie", "Host", "Http2-Settings", "Keep-Alive",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

func isHeaderName(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// maxFolded bounds the names that are folded on the stack.
const maxFolded = 64

// foldName is the form in which names count as equal: upstreams (CGI, WSGI, PHP)
// turn each character that is not a letter or digit into the same one and ignore
// case, so each run of such characters is one "-" here (oauth2-proxy
// CVE-2025-64484, Caddy CVE-2026-52845, Traefik CVE-2026-39858).
func foldName(name string) string {
	return string(appendFolded(make([]byte, 0, len(name)), name))
}

func appendFolded(b []byte, name string) []byte {
	inRun := false
	for i := range len(name) {
		c := name[i]
		if !isAlphanumeric(c) {
			if !inRun {
				b = append(b, '-')
			}
			inRun = true
			continue
		}
		inRun = false
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// forges reports whether an upstream could take name for one of ours.
func (h *identityHeaders) forges(name string) bool {
	if name == "" || !h.begins[name[0]] {
		return false
	}
	var stack [maxFolded]byte
	_, ours := h.folded[string(appendFolded(stack[:0], name))]
	return ours
}

// strip removes everything by which a client could claim an identity, or take
// ours away: header fields, the names that Connection lists (a proxy drops those
// after us: Traefik CVE-2024-45410), and trailers. It runs first, on every
// request.
func (h *identityHeaders) strip(r *http.Request) {
	for name := range r.Header {
		if h.forges(name) {
			delete(r.Header, name)
		}
	}
	if lines, ok := r.Header["Connection"]; ok {
		h.stripConnection(r.Header, lines)
	}
	stripTunnels(r.Header)
	h.stripTrailers(r)
}

// stripTunnels leaves WebSocket as the only protocol that a request can be upgraded
// to. Through any other, h2c first of all, requests would follow that nobody here
// sees, with any header and for any path.
func stripTunnels(header http.Header) {
	delete(header, "Http2-Settings")
	if to, ok := header["Upgrade"]; ok && (len(to) != 1 || !strings.EqualFold(to[0], "websocket")) {
		delete(header, "Upgrade")
	}
}

// stripConnection takes our names out of Connection, and leaves a Connection that
// names none of them untouched.
func (h *identityHeaders) stripConnection(header http.Header, lines []string) {
	var kept []string
	found := false
	for _, line := range lines {
		for token := range strings.SplitSeq(line, ",") {
			token = textproto.TrimString(token)
			if h.forges(token) {
				found = true
				continue
			}
			if token != "" {
				kept = append(kept, token)
			}
		}
	}
	switch {
	case !found:
	case len(kept) == 0:
		delete(header, "Connection")
	default:
		header["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// stripTrailers removes our names from the announced trailers now, and from the
// ones that arrive when the body has ended: net/http takes them unannounced, too.
func (h *identityHeaders) stripTrailers(r *http.Request) {
	h.stripTrailerMap(r.Trailer)
	if r.Body != nil && r.ContentLength < 0 {
		r.Body = &trailerStripper{ReadCloser: r.Body, request: r, headers: h}
	}
}

func (h *identityHeaders) stripTrailerMap(trailer http.Header) {
	for name := range trailer {
		if h.forges(name) {
			delete(trailer, name)
		}
	}
}

// trailerStripper is a request body that removes forged trailers in the very Read
// that reports the end, before a proxy can copy them.
type trailerStripper struct {
	io.ReadCloser
	request *http.Request
	headers *identityHeaders
}

func (t *trailerStripper) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		t.headers.stripTrailerMap(t.request.Trailer)
	}
	return n, err
}

// identity is who a request comes from, as the upstream is to see it.
type identity struct {
	session *session
	userView
	// assertion is the whole of it, signed, where that is configured.
	assertion string
}

// fieldOf is the user information's field that a value is, or fieldCount for the
// two that are not of it.
func fieldOf(v identityValue) userField {
	switch v {
	case valueID:
		return fieldID
	case valueUsername:
		return fieldUsername
	case valueEmail:
		return fieldEmail
	case valueBalance:
		return fieldBalance
	case valueQuota:
		return fieldQuota
	case valueUsedQuota:
		return fieldUsedQuota
	default:
		return fieldCount
	}
}

// shows reports whether a value may be shown. The balance, its age and the quotas are
// passed on only while they are not too old. A balance that is no amount is passed on as
// the provider wrote it, with the state unknown.
func (id *identity) shows(v identityValue) bool {
	switch v {
	case valueBalance, valueQuota, valueUsedQuota, valueBalanceAge:
		return id.told
	default:
		return true
	}
}

// text is the value of a placeholder. Each is there on every identified request,
// and empty when unknown.
func (id *identity) text(v identityValue) string {
	if !id.shows(v) {
		return ""
	}
	switch v {
	case valueBalanceState:
		return string(id.state)
	case valueBalanceAge:
		return strconv.FormatInt(int64(max(id.age, 0)/time.Second), 10)
	default:
		return id.info.text(fieldOf(v))
	}
}

// header is the value of a preset's header: the text, encoded.
func (id *identity) header(v identityValue) string {
	if f := fieldOf(v); f != fieldCount && id.shows(v) {
		return id.info.headers[f]
	}
	return id.text(v)
}

// set writes the identity into a request's header. The values of one request
// share one array, and no two requests share any: a later handler may change a
// value in place. expand fills in the placeholders of the operator's own headers.
func (h *identityHeaders) set(header http.Header, id *identity, expand func(string) string) {
	values := make([]string, 0, len(h.preset)+len(h.own)+1)
	put := func(name, value string) {
		values = append(values, value)
		last := len(values) - 1
		header[name] = values[last : last+1 : last+1]
	}
	for _, p := range h.preset {
		put(p.name, id.header(p.value))
	}
	for _, o := range h.own {
		put(o.name, encodeHeaderValue(expand(o.template)))
	}
	if h.assertion != "" {
		put(h.assertion, id.assertion)
	}
}

// setEmpty sets every header of ours, without a value.
func (h *identityHeaders) setEmpty(header http.Header) {
	for _, p := range h.preset {
		header[p.name] = []string{""}
	}
	for _, o := range h.own {
		header[o.name] = []string{""}
	}
	if h.assertion != "" {
		header[h.assertion] = []string{""}
	}
	if h.token != "" {
		header[h.token] = []string{""}
	}
}

// largest names the header of ours with the longest value, for whoever has to leave
// one out.
func (h *identityHeaders) largest(header http.Header) (name string) {
	longest := -1
	for _, p := range h.preset {
		if n := len(header.Get(p.name)); n > longest {
			name, longest = p.name, n
		}
	}
	for _, o := range h.own {
		if n := len(header.Get(o.name)); n > longest {
			name, longest = o.name, n
		}
	}
	if n := len(header.Get(h.assertion)); h.assertion != "" && n > longest {
		name, longest = h.assertion, n
	}
	if n := len(header.Get(h.token)); h.token != "" && n > longest {
		name = h.token
	}
	return name
}
