package command

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
)

func TestSessionsCommandsRecogniseAForeignServer(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"a Caddy without tollgate", http.NotFound},
		{"a web page", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }},
		{"a failing page", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte(`{"message":"x"}`))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			address := server.Listener.Addr().String()
			commandtest.WantError(t, commands.Run("sessions", "list", "--user", "1", "--address", address), address, "tollgate")
			commandtest.WantError(t, commands.Run("sessions", "end", "--user", "1", "--address", address), address, "tollgate")
		})
	}
}

func TestSessionsCommandsNameAMissingArgument(t *testing.T) {
	name := strings.Repeat("a", 32)
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "sessions needs a command: list or end"},
		{[]string{"lst"}, "unknown command 'lst'; sessions has the commands list and end"},
		{[]string{"lst", "--user", "12345"}, "unknown command 'lst'; sessions has the commands list and end"},
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
		commandtest.WantError(t, commands.Run(append([]string{"sessions"}, test.args...)...), test.want)
	}
	if got := commands.Run("sessions", "--help"); got.Err != nil || !strings.Contains(got.Out, "\n  list ") || !strings.Contains(got.Out, "\n  end ") {
		t.Errorf("the help: %s", got.All())
	}
}

func TestTimesAreShownWithTheirDistance(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.Local)
	for _, c := range []struct {
		want   string
		moment time.Time
	}{
		{"2026-06-01 12:00 (0m ago)", now},
		{"2026-06-01 10:01 (119m ago)", now.Add(-119 * time.Minute)},
		{"2026-06-01 10:00 (2h ago)", now.Add(-2 * time.Hour)},
		{"2026-05-30 13:00 (47h ago)", now.Add(-47 * time.Hour)},
		{"2026-05-30 12:00 (2d ago)", now.Add(-48 * time.Hour)},
		{"2026-06-01 12:30 (in 30m)", now.Add(30 * time.Minute)},
		{"2026-07-01 12:00 (in 30d)", now.Add(30 * 24 * time.Hour)},
	} {
		if got := localTime(c.moment.Unix(), now); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
