// Package identity tells the upstream who the user is: it removes what clients claim,
// sets the headers of the chosen presets, and signs assertions.
//
// All identity headers are set from one list, Headers. Begin with Headers.Strip.
package identity

import (
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// IdentityHeader is one header that tells the upstream who the user is.
type IdentityHeader struct {
	Name  string // canonical
	value identityValue
}

// identityValue is what a header of a preset carries.
type identityValue int

const (
	ValueID identityValue = iota
	ValueUsername
	ValueEmail
	ValueBalance
	ValueQuota
	ValueUsedQuota
	ValueBalanceAge
	ValueBalanceState
)

// Presets are the header sets that applications already understand.
var Presets = map[string][]IdentityHeader{
	"default": {
		{"X-User-Id", ValueID},
		{"X-User-Name", ValueUsername},
		{"X-User-Email", ValueEmail},
		{"X-User-Balance", ValueBalance},
		{"X-User-Quota", ValueQuota},
		{"X-User-Used-Quota", ValueUsedQuota},
		{"X-User-Balance-Age", ValueBalanceAge},
		{"X-User-Balance-State", ValueBalanceState},
	},
	"webauth": {
		{"X-Webauth-User", ValueUsername},
		{"X-Webauth-Email", ValueEmail},
		{"X-Webauth-Name", ValueUsername},
	},
	"remote": {
		{"Remote-User", ValueUsername},
		{"Remote-Name", ValueUsername},
		{"Remote-Email", ValueEmail},
	},
	"forwarded": {
		{"X-Forwarded-User", ValueID},
		{"X-Forwarded-Email", ValueEmail},
		{"X-Forwarded-Preferred-Username", ValueUsername},
	},
	"auth_request": {
		{"X-Auth-Request-User", ValueID},
		{"X-Auth-Request-Email", ValueEmail},
		{"X-Auth-Request-Preferred-Username", ValueUsername},
	},
	"none": nil,
}

// ownHeader is a header of the operator's own, with placeholders.
type ownHeader struct {
	name     string // canonical
	template string
}

// Headers is the one list of everything that tells the upstream who the
// user is: what is set stands here, and what is removed follows from it.
type Headers struct {
	preset []IdentityHeader
	own    []ownHeader
	// assertion names the header with the signed identity; empty: there is none.
	assertion string
	// Token is the header that carries the access token, or empty.
	Token  string
	folded map[string]struct{}
	// begins holds the bytes that a name of ours may begin with: most of a request's
	// headers are none of ours for that alone.
	begins [256]bool
}

// NewHeaders puts presets and own headers together. An own header of the
// same name takes the preset's place.
func NewHeaders(presets []string, own map[string]string) (*Headers, error) {
	h := &Headers{folded: make(map[string]struct{})}
	for name, template := range own {
		if !header.IsName(name) {
			return nil, fmt.Errorf("%q is not a header name", name)
		}
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		if header.IsReserved(canonical) {
			return nil, fmt.Errorf("%s cannot carry the identity: it steers the request itself", canonical)
		}
		if _, taken := h.folded[header.Fold(canonical)]; taken {
			return nil, fmt.Errorf("%s is given twice", canonical)
		}
		h.own = append(h.own, ownHeader{canonical, template})
		h.folded[header.Fold(canonical)] = struct{}{}
	}
	defer h.noteBeginnings()
	slices.SortFunc(h.own, func(a, b ownHeader) int { return strings.Compare(a.name, b.name) })
	for _, preset := range presets {
		headers, known := Presets[preset]
		if !known {
			return nil, fmt.Errorf("unknown preset %q", preset)
		}
		for _, fields := range headers {
			if _, taken := h.folded[header.Fold(fields.Name)]; !taken {
				h.preset = append(h.preset, fields)
				h.folded[header.Fold(fields.Name)] = struct{}{}
			}
		}
	}
	return h, nil
}

func (h *Headers) noteBeginnings() {
	for c := range len(h.begins) {
		first := header.AppendFolded(nil, string([]byte{byte(c)}))
		for folded := range h.folded {
			h.begins[c] = h.begins[c] || folded[0] == first[0]
		}
	}
}

// MaxFolded bounds the names that are folded on the stack.
const MaxFolded = 64

// Forges reports whether an upstream could take name for one of ours.
func (h *Headers) Forges(name string) bool {
	if name == "" || !h.begins[name[0]] {
		return false
	}
	var stack [MaxFolded]byte
	_, ours := h.folded[string(header.AppendFolded(stack[:0], name))]
	return ours
}

// Strip removes everything by which a client could claim an identity, or take
// ours away: header fields, the names that Connection lists (a proxy drops those
// after us: Traefik CVE-2024-45410), and trailers. It runs first, on every
// request.
func (h *Headers) Strip(r *http.Request) {
	for name := range r.Header {
		if h.Forges(name) {
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
func (h *Headers) stripConnection(header http.Header, lines []string) {
	var kept []string
	found := false
	for _, line := range lines {
		for token := range strings.SplitSeq(line, ",") {
			token = textproto.TrimString(token)
			if h.Forges(token) {
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
func (h *Headers) stripTrailers(r *http.Request) {
	h.stripTrailerMap(r.Trailer)
	if r.Body != nil && r.ContentLength < 0 {
		r.Body = &trailerStripper{ReadCloser: r.Body, request: r, headers: h}
	}
}

func (h *Headers) stripTrailerMap(trailer http.Header) {
	for name := range trailer {
		if h.Forges(name) {
			delete(trailer, name)
		}
	}
}

// trailerStripper is a request body that removes forged trailers in the very Read
// that reports the end, before a proxy can copy them.
type trailerStripper struct {
	io.ReadCloser
	request *http.Request
	headers *Headers
}

func (t *trailerStripper) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		t.headers.stripTrailerMap(t.request.Trailer)
	}
	return n, err
}

// Identity is who a request comes from, as the upstream is to see it.
type Identity struct {
	Session *session.Session
	account.View
	// Assertion is the whole of it, signed, where that is configured.
	Assertion string
}

// fieldOf is the user information's field that a value is, or FieldCount for the
// two that are not of it.
func fieldOf(v identityValue) oauth.UserField {
	switch v {
	case ValueID:
		return oauth.FieldID
	case ValueUsername:
		return oauth.FieldUsername
	case ValueEmail:
		return oauth.FieldEmail
	case ValueBalance:
		return oauth.FieldBalance
	case ValueQuota:
		return oauth.FieldQuota
	case ValueUsedQuota:
		return oauth.FieldUsedQuota
	default:
		return oauth.FieldCount
	}
}

// shows reports whether a value may be shown. The balance, its age and the quotas are
// passed on only while they are not too old. A balance that is no amount is passed on as
// the provider wrote it, with the state unknown.
func (id *Identity) shows(v identityValue) bool {
	switch v {
	case ValueBalance, ValueQuota, ValueUsedQuota, ValueBalanceAge:
		return id.Told
	default:
		return true
	}
}

// Text is the value of a placeholder. Each is there on every identified request,
// and empty when unknown.
func (id *Identity) Text(v identityValue) string {
	if !id.shows(v) {
		return ""
	}
	switch v {
	case ValueBalanceState:
		return string(id.State)
	case ValueBalanceAge:
		return strconv.FormatInt(int64(max(id.Age, 0)/time.Second), 10)
	default:
		return id.Info.Text(fieldOf(v))
	}
}

// header is the value of a preset's header: the text, encoded.
func (id *Identity) header(v identityValue) string {
	if f := fieldOf(v); f != oauth.FieldCount && id.shows(v) {
		return id.Info.Headers[f]
	}
	return id.Text(v)
}

// Set writes the identity into a request's header. The values of one request
// share one array, and no two requests share any: a later handler may change a
// value in place. expand fills in the placeholders of the operator's own headers.
func (h *Headers) Set(fields http.Header, id *Identity, expand func(string) string) {
	values := make([]string, 0, len(h.preset)+len(h.own)+1)
	put := func(name, value string) {
		values = append(values, value)
		last := len(values) - 1
		fields[name] = values[last : last+1 : last+1]
	}
	for _, p := range h.preset {
		put(p.Name, id.header(p.value))
	}
	for _, o := range h.own {
		put(o.name, header.Encode(expand(o.template)))
	}
	if h.assertion != "" {
		put(h.assertion, id.Assertion)
	}
}

// SetEmpty sets every header of ours, without a value.
func (h *Headers) SetEmpty(header http.Header) {
	for _, p := range h.preset {
		header[p.Name] = []string{""}
	}
	for _, o := range h.own {
		header[o.name] = []string{""}
	}
	if h.assertion != "" {
		header[h.assertion] = []string{""}
	}
	if h.Token != "" {
		header[h.Token] = []string{""}
	}
}

// Largest names the header of ours with the longest value, for whoever has to leave
// one out.
func (h *Headers) Largest(header http.Header) (name string) {
	longest := -1
	for _, p := range h.preset {
		if n := len(header.Get(p.Name)); n > longest {
			name, longest = p.Name, n
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
	if n := len(header.Get(h.Token)); h.Token != "" && n > longest {
		name = h.Token
	}
	return name
}
