package simulator_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestUserInfoReturnsTheDocumentedFields(t *testing.T) {
	w := start(t, autoLogin())
	answer := w.userInfo(w.login().access)
	w.wantStatus(answer, http.StatusOK)
	const want = `{"id":12345,"username":"user123","email":"user@example.com",` +
		`"quota":375000000,"used_quota":125000000,"balance_formatted":"750.00",` +
		`"created_time":1640995200,"status":1}` + "\n"
	if answer.body != want {
		t.Errorf("answer\n%swant\n%s", answer.body, want)
	}
	if got := answer.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		t.Errorf("content type %q", got)
	}
}

func TestUserInfoShowsWhatTheScopeAllows(t *testing.T) {
	w := start(t, autoLogin())
	always := []string{"created_time", "id", "status"}
	profile := []string{"email", "username"}
	balance := []string{"balance_formatted", "quota", "used_quota"}
	for scope, want := range map[string][]string{
		"":                        slices.Concat(always, profile, balance),
		"profile balance":         slices.Concat(always, profile, balance),
		"balance profile balance": slices.Concat(always, profile, balance),
		"profile":                 slices.Concat(always, profile),
		"balance":                 slices.Concat(always, balance),
	} {
		got := slices.Sorted(maps.Keys(w.userInfo(w.login("scope", scope).access).json(t)))
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("scope %q: %v, want %v", scope, got, want)
		}
	}
}

func TestUserInfoSendsAnEmptyEmailAndNamesOutsideASCII(t *testing.T) {
	w := start(t, simulator.Options{AutoLogin: "张伟"})
	info := w.userInfo(w.login().access).json(t)
	email, has := info["email"]
	if info["username"] != "张伟" || !has || email != "" || info["balance_formatted"] != "0.00" {
		t.Errorf("%v", info)
	}
}

func TestUserInfoFollowsChangesOfTheUser(t *testing.T) {
	w := start(t, autoLogin())
	access := w.login().access
	err := w.UpdateUser(userID, func(u *simulator.User) {
		u.Username, u.Status, u.BalanceCents = "renamed", simulator.StatusDisabled, -5
	})
	if err != nil {
		t.Fatal(err)
	}
	info := w.userInfo(access).json(t)
	if info["username"] != "renamed" || info["status"] != 2.0 || info["balance_formatted"] != "-0.05" {
		t.Errorf("%v", info)
	}
}

func TestBearerEndpointsRefuseEverythingButAValidAccessToken(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	for name, test := range map[string]struct {
		header, query string
		wantError     bool
	}{
		"nothing":            {"", "", false},
		"token in the query": {"", "?access_token=" + pair.access, false},
		"Basic":              {"Basic " + pair.access, "", false},
		"no token":           {"Bearer ", "", false},
		"unknown":            {"Bearer abc", "", true},
		"refresh token":      {"Bearer " + pair.refresh, "", true},
		"two tokens":         {"Bearer " + pair.access + " x", "", true},
		"changed last byte":  {"Bearer " + pair.access[:799] + "!", "", true},
	} {
		for _, path := range []string{simulator.UserInfoPath, simulator.TopUpPath} {
			header := http.Header{}
			if test.header != "" {
				header.Set("Authorization", test.header)
			}
			answer := w.browser().send("GET", path+test.query, header, "")
			challenge := answer.Header.Get("WWW-Authenticate")
			if answer.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(challenge, "Bearer ") {
				t.Errorf("%s at %s: %s, challenge %q", name, path, answer.Status, challenge)
			}
			if strings.Contains(challenge, `error="invalid_token"`) != test.wantError {
				t.Errorf("%s at %s: challenge %q", name, path, challenge)
			}
			if answer.json(t)["error"] != "invalid_token" {
				t.Errorf("%s at %s: %s", name, path, answer.body)
			}
		}
	}
}

func TestBearerSchemeIsCaseInsensitive(t *testing.T) {
	w := start(t, autoLogin())
	header := http.Header{"Authorization": {"bearer " + w.login().access}}
	w.wantStatus(w.browser().send("GET", simulator.UserInfoPath, header, ""), http.StatusOK)
}
