package tollgate

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/command"
)

// run runs `caddy tollgate sessions …` against the admin API of o.
func (o *operated) run(args ...string) commandRun {
	o.t.Helper()
	return runCommand(append(append([]string{"sessions"}, args...), "--address", o.admin)...)
}

// wantOutput checks what a command printed, and that it did not fail.
func wantOutput(t *testing.T, got commandRun, out, errs string) {
	t.Helper()
	if got.err != nil || got.out != out || !strings.Contains(got.errs, errs) || (errs == "" && got.errs != "") {
		t.Errorf("printed %q and %q (%v), want %q and %q", got.out, got.errs, got.err, out, errs)
	}
}

// wantCommandError checks that a command failed with one line that has all words.
func wantCommandError(t *testing.T, got commandRun, words ...string) {
	t.Helper()
	if got.err == nil || got.out != "" || strings.Contains(got.err.Error(), "\n") {
		t.Errorf("printed %q, and failed with: %v", got.out, got.err)
		return
	}
	for _, word := range words {
		if !strings.Contains(got.err.Error(), word) {
			t.Errorf("the error has no %q: %v", word, got.err)
		}
	}
}

func TestSessionsAreListedAndEndedByCommand(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	laptop, phone := o.newBrowser().signIn(), o.newBrowser().signIn()
	sessions := o.list(testUserID).Sessions

	got := o.run("list", "--user", testUserID)
	signedIn := time.Unix(sessions[1].CreatedAt, 0).Format("2006-01-02 15:04")
	lines := strings.Split(got.out, "\n")
	if got.err != nil || len(lines) != 4 || !regexp.MustCompile(`^SESSION +SITE +SIGNED IN +LAST SEEN +EXPIRES$`).MatchString(lines[0]) ||
		!strings.HasPrefix(lines[1], sessions[0].Session+"   "+o.url+"   ") ||
		!regexp.MustCompile("^"+sessions[1].Session+" +"+o.url+" +"+signedIn+` \(0m ago\) +- +\d{4}-\d\d-\d\d \d\d:\d\d \(in 29d\)$`).MatchString(lines[2]) {
		t.Errorf("%v\n%s", got.err, got.all())
	}
	var listed adminapi.Sessions
	if got := o.run("list", "--user", testUserID, "--json"); json.Unmarshal([]byte(got.out), &listed) != nil ||
		len(listed.Sessions) != 2 || listed.Sessions[0] != sessions[0] || listed.Sessions[1] != sessions[1] {
		t.Errorf("as JSON: %s", got.all())
	}

	wantOutput(t, o.run("end", sessions[1].Session), "1 session ended\n", "")
	wantSignedIn(t, "the laptop", laptop, false)
	wantSignedIn(t, "the phone", phone, true)
	wantCommandError(t, o.run("end", sessions[1].Session), "there is no session "+sessions[1].Session)
	wantOutput(t, o.run("end", "--user", testUserID), "1 session ended\n", "")
	wantSignedIn(t, "the phone", phone, false)
	wantOutput(t, o.run("end", "--user", testUserID), "0 sessions ended\n", "")
	wantOutput(t, o.run("list", "--user", testUserID), "no sessions\n", "")
	wantOutput(t, o.run("list", "--user", "a&user=b c/é"), "no sessions\n", "")
	wantOutput(t, o.run("list", "--user", "1", "--json"), `{"sessions":[]}`+"\n", "")
}

func TestTheSessionsCommandsFindTheAdminAPI(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	folder := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	list := func(more ...string) commandRun {
		return runCommand(append([]string{"sessions", "list", "--user", "1"}, more...)...)
	}
	config, err := adapt(o.caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	wantOutput(t, list("--config", write("Caddyfile", o.caddyfile)), "no sessions\n", "")
	wantOutput(t, list("--config", write("mine", o.caddyfile), "--adapter", "caddyfile"), "no sessions\n", "")
	wantOutput(t, list("-c", write("caddy.json", string(config))), "no sessions\n", "")
	off := write("off.caddyfile", strings.Replace(o.caddyfile, "admin "+o.admin, "admin off", 1))
	wantCommandError(t, list("--config", off), "--config: ", off, "`admin off`")
	wantOutput(t, list("--config", off, "--address", o.admin), "no sessions\n", "")
	wantCommandError(t, list("--config", filepath.Join(folder, "none")), "--config: ", "none")
	wantCommandError(t, list("--address", freeAddress()), "no admin API answers at 127.0.0.1:", "is Caddy running", "--address", "`admin off`")
}

func TestTheSessionsCommandsKnowWhatIsNoTollgate(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a Caddy without tollgate": http.NotFound,
		"a web page":               func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"a failing page": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte(`{"message":"x"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			defer server.Close()
			address := server.Listener.Addr().String()
			wantCommandError(t, runCommand("sessions", "list", "--user", "1", "--address", address), address, "tollgate")
			wantCommandError(t, runCommand("sessions", "end", "--user", "1", "--address", address), address, "tollgate")
		})
	}
}

func TestSessionsCommandsFailIfAllSessionsAreInCookies(t *testing.T) {
	o := operateCaddy(t, "")
	wantCommandError(t, o.run("list", "--user", "1"), o.url, "sessions in cookies cannot be listed or ended", "store storage")
	wantCommandError(t, o.run("end", "--user", "1"), o.url, "store storage")
}

func TestTheSessionsCommandsWarnOfSessionsInCookies(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, "")
	wantOutput(t, o.run("list", "--user", "1"), "no sessions\n", other.url)
	wantOutput(t, o.run("end", "--user", "1"), "0 sessions ended\n", other.url)
	if got := o.run("list", "--user", "1", "--json"); got.out != `{"sessions":[],"cookie_sites":["`+other.url+`"]}`+"\n" {
		t.Errorf("as JSON: %s", got.all())
	}
}

func TestTheSessionsCommandsAskForWhatIsMissing(t *testing.T) {
	name := strings.Repeat("a", 32)
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "sessions needs a command: list or end"},
		{[]string{"lst"}, "unknown command 'lst' of sessions, which has list and end"},
		{[]string{"lst", "--user", "12345"}, "unknown command 'lst' of sessions, which has list and end"},
		{[]string{"list"}, "--user is required: the user's id, as in the header X-User-Id"},
		{[]string{"list", "--user", ""}, "--user is required: the user's id, as in the header X-User-Id"},
		{[]string{"list", "12345"}, `unknown command "12345" for "caddy tollgate sessions list"`},
		{[]string{"list", "--usr", "1"}, "unknown flag: --usr"},
		{[]string{"end"}, "name one session, or a user with --user <id>"},
		{[]string{"end", "--user", ""}, "name one session, or a user with --user <id>"},
		{[]string{"end", name, name}, "name one session, or a user with --user <id>"},
		{[]string{"end", name, "--user", "12345"}, "name one session, or a user with --user <id>"},
		{[]string{"end", name, "--user", ""}, "name one session, or a user with --user <id>"},
		{[]string{"end", "12345"}, adminapi.ErrNoName.Error()},
		{[]string{"end", "../../stop"}, adminapi.ErrNoName.Error()},
	} {
		wantCommandError(t, runCommand(append([]string{"sessions"}, test.args...)...), test.want)
	}
	if got := runCommand("sessions", "--help"); got.err != nil || !strings.Contains(got.out, "\n  list ") || !strings.Contains(got.out, "\n  end ") {
		t.Errorf("the help: %s", got.all())
	}
}

func TestTimesAreShownWithTheirDistance(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.Local)
	for want, moment := range map[string]time.Time{
		"2026-06-01 12:00 (0m ago)":   now,
		"2026-06-01 10:01 (119m ago)": now.Add(-119 * time.Minute),
		"2026-06-01 10:00 (2h ago)":   now.Add(-2 * time.Hour),
		"2026-05-30 13:00 (47h ago)":  now.Add(-47 * time.Hour),
		"2026-05-30 12:00 (2d ago)":   now.Add(-48 * time.Hour),
		"2026-06-01 12:30 (in 30m)":   now.Add(30 * time.Minute),
		"2026-07-01 12:00 (in 30d)":   now.Add(30 * 24 * time.Hour),
	} {
		if got := command.LocalTime(moment.Unix(), now); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
