package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/header"
)

// UserField numbers what tollgate reads of a user information answer. It reads
// nothing else: an allow-list, so that nothing unforeseen reaches a browser.
type UserField int

const (
	FieldID UserField = iota
	FieldUsername
	FieldEmail
	FieldQuota
	FieldUsedQuota
	FieldBalance
	FieldStatus
	FieldCreatedTime
	FieldCount
)

// UserFieldWords are the words of the configuration's fields block.
var UserFieldWords = [FieldCount]string{
	"id", "username", "email", "quota", "used_quota", "balance", "status", "created_time",
}

// UserFieldJSON are the members of the provider's own answer, which the userinfo
// endpoint keeps.
var UserFieldJSON = [FieldCount]string{
	"id", "username", "email", "quota", "used_quota", "balance_formatted", "status", "created_time",
}

// Scalar is a JSON string, number or boolean exactly as the provider wrote it,
// or empty where there was none. Numbers never pass through a float64, so that an
// id or a quota of any size stays exact.
type Scalar string

// text is the value as a person would write it: a string without its quotes.
func (s Scalar) text() string {
	if !strings.HasPrefix(string(s), `"`) {
		return string(s)
	}
	var text string
	if json.Unmarshal([]byte(s), &text) != nil {
		return ""
	}
	return text
}

// UserInfo is what the provider said of a user, and when. Make one with
// NewUserInfo.
type UserInfo struct {
	Fields [FieldCount]Scalar
	// texts and headers are the fields' texts, plain and encoded for a header, worked
	// out once.
	texts   [FieldCount]string
	Headers [FieldCount]string
	ReadAt  time.Time
	// Amount is the balance as a number, where isAmount says that it is one.
	Amount   decimal.Decimal
	IsAmount bool
}

func NewUserInfo(fields [FieldCount]Scalar, readAt time.Time) UserInfo {
	u := UserInfo{Fields: fields, ReadAt: readAt}
	for f, value := range fields {
		u.texts[f] = value.text()
		u.Headers[f] = header.Encode(u.texts[f])
	}
	u.Amount, u.IsAmount = decimal.Parse(u.texts[FieldBalance])
	return u
}

func (u *UserInfo) Text(f UserField) string { return u.texts[f] }

// ID is the provider's immutable id, as exact text: the only thing by which users
// are told apart.
func (u *UserInfo) ID() string { return u.Text(FieldID) }

// maxField bounds one field in bytes; the fields stand in the session cookie.
const maxField = 512

var (
	errUserInfoRefused = errors.New("the answer says that it is no success")
	errUserInfoShape   = errors.New("the answer is not one JSON object with each member once")
	errUserInfoNoID    = errors.New("the answer has no id")
)

// FieldPaths says where each field stands: member names, from the outside in.
type FieldPaths [FieldCount][]string

// parseUserInfo reads a user information answer. An answer without an id, or one
// that says success:false, is an error whatever its HTTP status was: the product
// family answers a bad token or a banned user that way under 200.
func parseUserInfo(body []byte, paths FieldPaths, now time.Time) (UserInfo, error) {
	object, err := parseAnswer(body)
	if err != nil {
		return UserInfo{}, err
	}
	var fields [FieldCount]Scalar
	for f := range FieldCount {
		fields[f] = lookUp(object, paths[f])
	}
	u := NewUserInfo(fields, now)
	if id := u.ID(); id == "" || u.Fields[FieldID] == "true" || u.Fields[FieldID] == "false" {
		return UserInfo{}, errUserInfoNoID
	}
	return u, nil
}

// addBalance takes the balance fields from the answer of a separate balance
// endpoint. A field that does not stand there keeps what userinfo said.
func (u *UserInfo) addBalance(body []byte, paths FieldPaths) error {
	object, err := parseAnswer(body)
	if err != nil {
		return err
	}
	fields := u.Fields
	for _, f := range []UserField{FieldBalance, FieldQuota, FieldUsedQuota} {
		if value := lookUp(object, paths[f]); value != "" {
			fields[f] = value
		}
	}
	*u = NewUserInfo(fields, u.ReadAt)
	return nil
}

// parseAnswer reads a JSON object and refuses one that says success:false.
func parseAnswer(body []byte) (map[string]json.RawMessage, error) {
	object, ok := decodeObject(body)
	if !ok {
		return nil, errUserInfoShape
	}
	if string(object["success"]) == "false" {
		return nil, errUserInfoRefused
	}
	return object, nil
}

// decodeObject reads one JSON object, whole. An object that names a member twice is
// none: of two readers each could take another one, and one of the members may be
// the user's id (RFC 8259 section 4).
func decodeObject(raw []byte) (map[string]json.RawMessage, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if opening, err := d.Token(); err != nil || opening != json.Delim('{') {
		return nil, false
	}
	object := make(map[string]json.RawMessage)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, false
		}
		name, _ := token.(string) // the decoder refuses any other kind of name
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil, false
		}
		if _, twice := object[name]; twice {
			return nil, false
		}
		object[name] = value
	}
	if closing, err := d.Token(); err != nil || closing != json.Delim('}') {
		return nil, false
	}
	_, err := d.Token()
	return object, errors.Is(err, io.EOF)
}

// lookUp follows a path of member names to a scalar. Anything else at its end
// (null, an object, an array, something overlong) counts as absent.
func lookUp(object map[string]json.RawMessage, path []string) Scalar {
	for i, name := range path {
		raw, ok := object[name]
		if !ok {
			return ""
		}
		if i == len(path)-1 {
			return toScalar(raw)
		}
		if object, ok = decodeObject(raw); !ok {
			return ""
		}
	}
	return ""
}

func toScalar(raw json.RawMessage) Scalar {
	if len(raw) == 0 || len(raw) > maxField {
		return ""
	}
	switch raw[0] {
	case '{', '[', 'n':
		return ""
	default:
		return Scalar(raw)
	}
}

// IsActive reports whether the provider says that the user may be served.
func (u *UserInfo) IsActive(want string, missingOK bool) bool {
	if want == anyStatus {
		return true
	}
	status := u.Text(FieldStatus)
	if status == "" {
		return missingOK
	}
	return status == want
}

// anyStatus is the active_status that accepts every user.
const anyStatus = "any"
