package oauth

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// FuzzUserInfo: an response that passes is about one user, whose id is the exact text
// that the provider wrote.
func FuzzUserInfo(f *testing.F) {
	for _, seed := range []string{
		`{"id":12345,"username":"a","balance_formatted":"1.00"}`, `{"id":"x"}`, `{"id":1,"id":2}`, `{"id":9007199254740993}`,
		`{"success":false,"id":1}`, `{"id":null}`, `{"id":{"id":1}}`, `{"id":1e400}`, `{"id":"\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	paths := ordinaryPaths()
	f.Fuzz(func(t *testing.T, body []byte) {
		u, err := parseUserInfo(body, paths, time.Now())
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		var strict map[string]any
		if err := d.Decode(&strict); err != nil {
			t.Fatalf("%q passes: %v", body, err)
		}
		var want string
		switch id := strict["id"].(type) {
		case string:
			want = id
		case json.Number:
			want = id.String()
		}
		if want == "" || u.ID() != want || strict["success"] == false {
			t.Fatalf("%q: the id is %q, want %q", body, u.ID(), want)
		}
		for field := range FieldCount {
			if raw := u.Fields[field]; raw != "" && !json.Valid([]byte(raw)) {
				t.Fatalf("%q: %s is %q", body, UserFieldJSON[field], raw)
			}
		}
	})
}

// ordinaryPaths look for each field under its own name.
func ordinaryPaths() (paths FieldPaths) {
	for field, name := range UserFieldJSON {
		paths[field] = []string{name}
	}
	return paths
}

func TestUserInfoIsReadExactly(t *testing.T) {
	paths := ordinaryPaths()
	u, err := parseUserInfo([]byte(`{"id":12345678901234567890,"username":"a\"é","email":null,"quota":1e3,"used_quota":-0.0,"balance_formatted":" $1,000.00 ","created_time":[],"status":"1","extra":"x"}`), paths, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		field UserField
		want  string
	}{
		{FieldID, "12345678901234567890"},
		{FieldUsername, `a"é`},
		{FieldEmail, ""},
		{FieldQuota, "1e3"},
		{FieldUsedQuota, "-0.0"},
		{FieldBalance, " $1,000.00 "},
		{FieldCreatedTime, ""},
		{FieldStatus, "1"},
	} {
		if got := u.Text(c.field); got != c.want {
			t.Errorf("%s: got %q, want %q", UserFieldWords[c.field], got, c.want)
		}
	}
	for _, body := range []string{`{}`, `{"id":null}`, `{"id":""}`, `{"id":{}}`, `{"id":true}`, `{"id":false}`, `null`, `[]`, `7`, ``, `{"id":1`, `{"id":1,"id":2}`, `{"id":1,"status":1,"status":2}`, `{"id":1}{"id":2}`, `{"id":1}x`, `{"id":1,"success":false}`, `{"id":"` + strings.Repeat("x", maxField) + `"}`} {
		if u, err := parseUserInfo([]byte(body), paths, time.Now()); err == nil {
			t.Errorf("%.40s: got the id %q, want an error", body, u.ID())
		}
	}
}
