package tollgate_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/command"
	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

// commands are those of `caddy tollgate`.
var commands = commandtest.Commands(command.AddCommands)

// run runs `caddy tollgate sessions …` against the admin API of o.
func (o *operated) run(args ...string) commandtest.Result {
	o.T.Helper()
	return commands.Run(append(append([]string{"sessions"}, args...), "--address", o.admin)...)
}

func TestSessionsAreListedAndEndedByCommand(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	laptop, phone := o.NewBrowser().SignIn(), o.NewBrowser().SignIn()
	sessions := o.list(gatewaytest.UserID).Sessions

	got := o.run("list", "--user", gatewaytest.UserID)
	signedIn := time.Unix(sessions[1].CreatedAt, 0).Format("2006-01-02 15:04")
	lines := strings.Split(got.Out, "\n")
	if got.Err != nil || len(lines) != 4 || !regexp.MustCompile(`^SESSION +SITE +SIGNED IN +LAST SEEN +EXPIRES$`).MatchString(lines[0]) ||
		!strings.HasPrefix(lines[1], sessions[0].Session+"   "+o.URL+"   ") ||
		!regexp.MustCompile("^"+sessions[1].Session+" +"+o.URL+" +"+signedIn+` \(0m ago\) +- +\d{4}-\d\d-\d\d \d\d:\d\d \(in 29d\)$`).MatchString(lines[2]) {
		t.Errorf("%v\n%s", got.Err, got.All())
	}
	var listed adminapi.Sessions
	if got := o.run("list", "--user", gatewaytest.UserID, "--json"); json.Unmarshal([]byte(got.Out), &listed) != nil ||
		len(listed.Sessions) != 2 || listed.Sessions[0] != sessions[0] || listed.Sessions[1] != sessions[1] {
		t.Errorf("as JSON: %s", got.All())
	}

	commandtest.WantOutput(t, o.run("end", sessions[1].Session), "1 session ended\n", "")
	wantSignedIn(t, "the laptop", laptop, false)
	wantSignedIn(t, "the phone", phone, true)
	commandtest.WantError(t, o.run("end", sessions[1].Session), "there is no session "+sessions[1].Session)
	commandtest.WantOutput(t, o.run("end", "--user", gatewaytest.UserID), "1 session ended\n", "")
	wantSignedIn(t, "the phone", phone, false)
	commandtest.WantOutput(t, o.run("end", "--user", gatewaytest.UserID), "0 sessions ended\n", "")
	commandtest.WantOutput(t, o.run("list", "--user", gatewaytest.UserID), "no sessions\n", "")
	commandtest.WantOutput(t, o.run("list", "--user", "a&user=b c/é"), "no sessions\n", "")
	commandtest.WantOutput(t, o.run("list", "--user", "1", "--json"), `{"sessions":[]}`+"\n", "")
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
	list := func(more ...string) commandtest.Result {
		return commands.Run(append([]string{"sessions", "list", "--user", "1"}, more...)...)
	}
	config, err := gatewaytest.Adapt(o.Caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	commandtest.WantOutput(t, list("--config", write("Caddyfile", o.Caddyfile)), "no sessions\n", "")
	commandtest.WantOutput(t, list("--config", write("mine", o.Caddyfile), "--adapter", "caddyfile"), "no sessions\n", "")
	commandtest.WantOutput(t, list("-c", write("caddy.json", string(config))), "no sessions\n", "")
	off := write("off.caddyfile", strings.Replace(o.Caddyfile, "admin "+o.admin, "admin off", 1))
	commandtest.WantError(t, list("--config", off), "--config: ", off, "`admin off`")
	commandtest.WantOutput(t, list("--config", off, "--address", o.admin), "no sessions\n", "")
	commandtest.WantError(t, list("--config", filepath.Join(folder, "none")), "--config: ", "none")
	commandtest.WantError(t, list("--address", porttest.Address()), "no response from the admin API at 127.0.0.1:", "check that Caddy is running", "--address", "`admin off`")
}

func TestSessionsCommandsFailIfAllSessionsAreInCookies(t *testing.T) {
	o := operateCaddy(t, "")
	commandtest.WantError(t, o.run("list", "--user", "1"), o.URL, "sessions in cookies cannot be listed or ended", "store storage")
	commandtest.WantError(t, o.run("end", "--user", "1"), o.URL, "store storage")
}

func TestTheSessionsCommandsWarnOfSessionsInCookies(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, "")
	commandtest.WantOutput(t, o.run("list", "--user", "1"), "no sessions\n", other.URL)
	commandtest.WantOutput(t, o.run("end", "--user", "1"), "0 sessions ended\n", other.URL)
	if got := o.run("list", "--user", "1", "--json"); got.Out != `{"sessions":[],"cookie_sites":["`+other.URL+`"]}`+"\n" {
		t.Errorf("as JSON: %s", got.All())
	}
}
