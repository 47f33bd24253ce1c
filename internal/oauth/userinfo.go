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

// UserField is a field of the user information that tollgate reads. It ignores all other
// fields, so that nothing unexpected reaches a browser.
type UserField int

// The fields, and their number.
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

// UserFieldWords are the names of the fields in the configuration's fields block.
var UserFieldWords = [FieldCount]string{
	"id", "username", "email", "quota", "used_quota", "balance", "status", "created_time",
}

// UserFieldJSON are the names of the fields in AIHubMix's response. Our userinfo endpoint uses
// the same names.
var UserFieldJSON = [FieldCount]string{
	"id", "username", "email", "quota", "used_quota", "balance_formatted", "status", "created_time",
}

// Scalar is a JSON string, number or boolean exactly as the provider wrote it, or empty if it
// is missing. A number is never converted to float64, so that ids and quotas of any size stay
// exact.
type Scalar string

// text returns the value without quotes.
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

// UserInfo is the user information from the provider, and the time when it was read. Create it
// with NewUserInfo.
type UserInfo struct {
	Fields [FieldCount]Scalar
	// texts and Headers are the fields as plain text and encoded for a header, computed once.
	texts   [FieldCount]string
	Headers [FieldCount]string
	ReadAt  time.Time
	// Amount is the balance as a number, if IsAmount is true.
	Amount   decimal.Decimal
	IsAmount bool
}

// NewUserInfo returns user information that was read at the given time.
func NewUserInfo(fields [FieldCount]Scalar, readAt time.Time) UserInfo {
	u := UserInfo{Fields: fields, ReadAt: readAt}
	for f, value := range fields {
		u.texts[f] = value.text()
		u.Headers[f] = header.Encode(u.texts[f])
	}
	u.Amount, u.IsAmount = decimal.Parse(u.texts[FieldBalance])
	return u
}

// Text returns a field as plain text.
func (u *UserInfo) Text(f UserField) string { return u.texts[f] }

// ID returns the provider's immutable user id as exact text. Users are distinguished by nothing
// else.
func (u *UserInfo) ID() string { return u.Text(FieldID) }

// maxField is the maximum size of one field in bytes, because the session cookie contains the
// fields.
const maxField = 512

var (
	errUserInfoRefused = errors.New("the response reports a failure (success: false)")
	errUserInfoShape   = errors.New("the response is not a JSON object, or a member occurs twice")
	errUserInfoNoID    = errors.New("the response has no id")
)

// FieldPaths is the path of each field: member names, from the outside in.
type FieldPaths [FieldCount][]string

// parseUserInfo reads a user information response. A response without an id, or with
// success:false, is an error whatever its HTTP status is: AIHubMix's product family answers 200
// for a bad token or a banned user.
func parseUserInfo(body []byte, paths FieldPaths, now time.Time) (UserInfo, error) {
	object, err := parseResponse(body)
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

// addBalance reads the balance fields from the response of a separate balance endpoint. A field
// that is missing there keeps its value from userinfo.
func (u *UserInfo) addBalance(body []byte, paths FieldPaths) error {
	object, err := parseResponse(body)
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

// parseResponse reads a JSON object and refuses one with success:false.
func parseResponse(body []byte) (map[string]json.RawMessage, error) {
	object, ok := decodeObject(body)
	if !ok {
		return nil, errUserInfoShape
	}
	if string(object["success"]) == "false" {
		return nil, errUserInfoRefused
	}
	return object, nil
}

// decodeObject reads one whole JSON object. It refuses an object in which a member occurs
// twice, because two readers could take different values, and the member may be the user's id
// (RFC 8259 section 4).
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

// lookUp follows a path of member names to a scalar. Everything else at its end (null, an
// object, an array, a text that is too long) counts as missing.
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

// IsActive reports whether the provider says that the user is active.
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

// anyStatus is the value of active_status that accepts every user.
const anyStatus = "any"
