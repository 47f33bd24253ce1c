// Package identity tells the upstream who the user is. It removes identity headers that
// clients send, sets the headers of the configured presets, and signs assertions.
//
// Headers is the only list of identity headers. Begin with Headers.Strip.
package identity

import (
	"fmt"
	"io"
	"maps"
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

// identityValue names a value of the identity that a header or a placeholder can carry.
type identityValue int

// The values of an identity. ValueBalanceAge is in whole seconds.
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

// Presets are the configurable sets of headers, by name. Applications already understand
// them.
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

// PresetNames lists the presets.
func PresetNames() []string { return slices.Sorted(maps.Keys(Presets)) }

// ownHeader is a header that the operator configured, with placeholders.
type ownHeader struct {
	name     string // canonical
	template string
}

// Headers is the list of all identity headers. Set writes the headers in it, and Strip
// removes the same headers from client requests.
type Headers struct {
	preset []IdentityHeader
	own    []ownHeader
	// assertion is the name of the header with the signed identity. Empty: no assertion.
	assertion string
	// Token is the name of the header with the access token. Empty: the token is not sent.
	Token  string
	folded map[string]struct{}
	// firstBytes is a cheap pre-filter: a header whose first byte is not in it cannot be an
	// identity header.
	firstBytes [256]bool
}

// NewHeaders returns the list of the headers of presets and of own, which maps names to
// templates. An own header replaces a preset's header of the same name. It fails if a preset
// is unknown, or if an own name is invalid, reserved or given twice.
func NewHeaders(presets []string, own map[string]string) (*Headers, error) {
	h := &Headers{folded: make(map[string]struct{})}
	for name, template := range own {
		if !header.IsName(name) {
			return nil, fmt.Errorf("%q is not a valid header name", name)
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
	defer h.noteFirstBytes()
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

func (h *Headers) noteFirstBytes() {
	for c := range len(h.firstBytes) {
		first := header.AppendFolded(nil, string([]byte{byte(c)}))
		for folded := range h.folded {
			h.firstBytes[c] = h.firstBytes[c] || folded[0] == first[0]
		}
	}
}

// Forges reports whether an upstream could mistake name for an identity header.
func (h *Headers) Forges(name string) bool {
	if name == "" || !h.firstBytes[name[0]] {
		return false
	}
	var stack [header.MaxFolded]byte
	_, ours := h.folded[string(header.AppendFolded(stack[:0], name))]
	return ours
}

// Strip removes everything with which a client could claim an identity, or make a later
// proxy drop the gateway's identity headers: header fields, names listed in Connection (a
// proxy drops those headers after us: Traefik CVE-2024-45410), and trailers. It must run
// first, on every request.
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

// Without returns headers whose Strip removes only what other's Strip leaves: the names of h
// that are no names of other.
func (h *Headers) Without(other *Headers) *Headers {
	rest := &Headers{folded: maps.Clone(h.folded)}
	for name := range other.folded {
		delete(rest.folded, name)
	}
	rest.noteFirstBytes()
	return rest
}

// stripTunnels allows WebSocket as the only protocol for an upgrade. Through another one,
// such as h2c, the client could send further requests that the gateway does not see, with
// any header and for any path.
func stripTunnels(header http.Header) {
	delete(header, "Http2-Settings")
	if to, ok := header["Upgrade"]; ok && (len(to) != 1 || !strings.EqualFold(to[0], "websocket")) {
		delete(header, "Upgrade")
	}
}

// stripConnection removes identity headers from Connection. A Connection that names none of
// them stays unchanged.
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

// stripTrailers removes identity headers from the announced trailers now, and from the
// received trailers at the end of the body: net/http also accepts unannounced ones.
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

// trailerStripper is a request body that removes forged trailers in the Read call that
// returns io.EOF, before a proxy can copy them.
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

// Identity is the user of a request as the upstream sees it.
type Identity struct {
	Session *session.Session
	account.View
	// Assertion is the signed identity. Empty if no assertion is configured.
	Assertion string
	// Available is what the user can spend besides this request. Empty if the request holds
	// nothing.
	Available string
}

// fieldOf returns the user information field of a value. It returns FieldCount for the
// balance's age and state, which are not fields.
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

// shows reports whether a value may be passed on. The balance, its age and the quotas are
// passed on only while they are not too old. A balance that is not an amount is passed on as
// the provider sent it, with the state unknown.
func (id *Identity) shows(v identityValue) bool {
	switch v {
	case ValueBalance, ValueQuota, ValueUsedQuota, ValueBalanceAge:
		return id.Told
	default:
		return true
	}
}

// Text returns a value as text, for a placeholder. It is empty if the value is unknown.
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

// header returns the value of a preset's header: the encoded text.
func (id *Identity) header(v identityValue) string {
	if f := fieldOf(v); f != oauth.FieldCount && id.shows(v) {
		return id.Info.Headers[f]
	}
	return id.Text(v)
}

// Set writes the identity into a request's header. expand fills in the placeholders of the
// operator's own headers. The values of one request share one array. Two requests never
// share one, because a later handler may change a value in place.
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

// SetAssertion replaces the assertion in a request's header. It does nothing if no assertion is
// configured.
func (h *Headers) SetAssertion(fields http.Header, text string) {
	if h.assertion != "" {
		fields[h.assertion] = []string{text}
	}
}

// SetEmpty sets every identity header to an empty value.
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

// Largest returns the name of the identity header with the longest value. A caller whose
// response is too large leaves that header out. It returns "" if there are no identity
// headers.
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
