package tollgate_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/cause"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// planted is an error_description of the provider. It must not reach a page or a log line.
const planted = "call 555-0100"

// refusal is a fault in which the provider refuses with an error code.
func refusal(status int, code string) simulator.Fault {
	return simulator.Fault{Status: status, Body: `{"error":"` + code + `","error_description":"` + planted + `"}`}
}

// failedSignIn is a sign-in that ends with a cause.
type failedSignIn struct {
	cause string
	// status is the status of the page if it differs from the status of the cause: a code in
	// the callback's URL always gives 400.
	status int
	fail   func(*gatewaytest.Site, *gatewaytest.Browser) *gatewaytest.Answer
}

// withFault signs in while an endpoint of the provider misbehaves.
func withFault(endpoint simulator.Endpoint, fault simulator.Fault) func(*gatewaytest.Site, *gatewaytest.Browser) *gatewaytest.Answer {
	return func(s *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
		s.Provider.SetFault(endpoint, fault)
		defer s.Provider.ClearFaults()
		return b.Visit(b.Authorize(""))
	}
}

// saysError comes back from the provider with an error in the URL.
func saysError(code string) failedSignIn {
	return failedSignIn{code, http.StatusBadRequest, func(_ *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
		query := url.Values{"error": {code}, "error_description": {planted}, "state": {b.StartLogin("").Get("state")}}
		return b.Visit("/oauth/callback?" + query.Encode())
	}}
}

func failedSignIns() []failedSignIn {
	tokens := `{"token_type":"Bearer","access_token":"` + strings.Repeat("a", 9000) + `"}`
	return []failedSignIn{
		saysError("access_denied"), saysError("invalid_request"), saysError("unauthorized_client"), saysError("invalid_scope"),
		saysError("unsupported_response_type"), saysError("server_error"), saysError("temporarily_unavailable"),
		{"missing_parameters", 0, func(_ *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			return b.Visit("/oauth/callback")
		}},
		{"invalid_state", 0, func(s *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			return s.NewBrowser().Visit(b.Authorize(""))
		}},
		{"expired", 0, func(s *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			callback := b.Authorize("")
			s.Clock.Advance(2 * time.Hour)
			return b.Visit(callback)
		}},
		{"other_origin", 0, func(s *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			elsewhere := s.NewBrowser().Visit("/oauth/start?at_origin=1", "Host: other.example")
			return b.Visit(b.Visit(elsewhere.Location()).Location())
		}},
		{"login_loop", 0, func(_ *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			var last *gatewaytest.Answer
			for range 5 {
				last = b.Visit(b.Authorize(""))
				b.SetCookie("tollgate", "") // the browser does not keep it
			}
			return last
		}},
		{"invalid_client", 0, func(s *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			client := simulator.Client{ID: gatewaytest.ClientID, Secret: "another secret", Name: "Tests", RedirectURIs: []string{s.URL + "/oauth/callback"}}
			s.Provider.SetClient(client)
			defer func() {
				client.Secret = gatewaytest.ClientSecret
				s.Provider.SetClient(client)
			}()
			return b.Visit(b.Authorize(""))
		}},
		{"unauthorized_client", 0, withFault(simulator.Exchange, refusal(400, "unauthorized_client"))},
		{"invalid_request", 0, withFault(simulator.Exchange, refusal(400, "invalid_request"))},
		{"invalid_scope", 0, withFault(simulator.Exchange, refusal(400, "invalid_scope"))},
		{"unsupported_grant_type", 0, withFault(simulator.Exchange, refusal(400, "unsupported_grant_type"))},
		{"invalid_grant", 0, withFault(simulator.Exchange, refusal(400, "invalid_grant"))},
		{"server_error", 0, withFault(simulator.Exchange, refusal(400, "an_error_of_its_own"))},
		{"temporarily_unavailable", 0, withFault(simulator.UserInfo, simulator.Fault{Status: 500})},
		{"temporarily_unavailable", 0, withFault(simulator.Exchange, simulator.Fault{Status: 503})},
		{"rate_limited", 0, withFault(simulator.Exchange, simulator.Fault{Status: 429})},
		{"timeout", 0, withFault(simulator.Exchange, simulator.Fault{Hang: true})},
		{"timeout", 0, withFault(simulator.UserInfo, simulator.Fault{Hang: true})},
		{"unreachable", 0, withFault(simulator.Exchange, simulator.Fault{Cut: simulator.CutBeforeAnswer})},
		{"invalid_response", 0, withFault(simulator.Exchange, simulator.Fault{Body: "<h1>" + planted + "</h1>"})},
		{"invalid_response", http.StatusBadRequest, func(_ *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			return b.Visit(b.Authorize("") + "&iss=https%3A%2F%2Fevil.example")
		}},
		{"userinfo_denied", 0, withFault(simulator.UserInfo, simulator.Fault{Status: 403})},
		{"inactive_user", 0, func(s *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			set := func(status int) {
				if err := s.Provider.UpdateUser(12345, func(u *simulator.User) { u.Status = status }); err != nil {
					s.T.Fatal(err)
				}
			}
			callback := b.Authorize("")
			set(2)
			defer set(simulator.StatusEnabled)
			return b.Visit(callback)
		}},
		{"session_too_large", 0, func(s *gatewaytest.Site, b *gatewaytest.Browser) *gatewaytest.Answer {
			s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"status":1}`})
			return withFault(simulator.Exchange, simulator.Fault{Body: tokens})(s, b)
		}},
	}
}

var (
	shownCode    = regexp.MustCompile(`Error code: ([a-z_]+)`)
	shownRequest = regexp.MustCompile(`Request ID: ([0-9a-f-]{36})`)
)

// wantCause checks the page, the log line and the audit line of one failed sign-in.
func wantCause(t *testing.T, logs *observer.ObservedLogs, a *gatewaytest.Answer, code string, status int) {
	t.Helper()
	row, ok := cause.Find(code)
	if !ok {
		t.Fatalf("%s is no cause", code)
	}
	if status == 0 {
		status = row.Status
	}
	shown, request := shownCode.FindStringSubmatch(a.Text), shownRequest.FindStringSubmatch(a.Text)
	if a.StatusCode != status || shown == nil || shown[1] != code || request == nil {
		t.Errorf("%s: got status %d, code %v, request id %v, want status %d", code, a.StatusCode, shown, request, status)
		return
	}
	var audited, logged []observer.LoggedEntry
	for _, entry := range logs.All() {
		fields := entry.ContextMap()
		switch {
		case fields["request_id"] != request[1]:
		case entry.Message == "login_failed" && entry.LoggerName == "audit":
			audited = append(audited, entry)
		case entry.Message == "sign-in failed":
			logged = append(logged, entry)
		}
		if text := strings.Join([]string{entry.Message, asText(fields)}, " "); strings.Contains(text, planted) {
			t.Errorf("%s: the log repeats the provider's text: %s", code, text)
		}
	}
	if strings.Contains(a.Text, planted) {
		t.Errorf("%s: the page repeats the provider's text", code)
	}
	if len(audited) != 1 || audited[0].ContextMap()["reason"] != code {
		t.Errorf("%s: audit lines of the request: %v", code, audited)
	}
	level, _ := zapcore.ParseLevel(string(row.Level))
	if len(logged) != 1 || logged[0].Level != level || logged[0].ContextMap()["cause"] != code || logged[0].ContextMap()["hint"] != row.Hint {
		t.Errorf("%s: want one %s line with cause and hint, got %v", code, row.Level, logged)
	}
}

func TestEachCauseOfAFailedSignInIsShownAndLogged(t *testing.T) {
	s, impatient := gatewaytest.New(t, gatewaytest.Options{}), gatewaytest.New(t, gatewaytest.Options{})
	hurry(impatient)
	logs := map[*gatewaytest.Site]*observer.ObservedLogs{s: observe(s), impatient: observe(impatient)}
	reached := map[string]bool{"store_unavailable": true} // below
	for _, c := range failedSignIns() {
		at := s
		if c.cause == "timeout" {
			at = impatient
		}
		wantCause(t, logs[at], c.fail(at, at.NewBrowser()), c.cause, c.status)
		reached[c.cause] = true
	}
	for _, row := range cause.All() {
		if !reached[row.Code] {
			t.Errorf("no sign-in ends with %s", row.Code)
		}
	}
}

func TestAFailedStoreIsACauseAndOneLineAMinute(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{})
	logs := observe(s)
	b := s.NewBrowser()
	callback := b.Authorize("")
	storage.Full.Store(true)
	wantCause(t, logs, b.Visit(callback), "store_unavailable", 0)
	for range 3 {
		b.Visit(b.Authorize(""))
	}
	if n := logs.FilterMessage("sign-in failed").Len(); n != 1 {
		t.Errorf("got %d lines within a minute, want 1", n)
	}
	s.Clock.Advance(2 * time.Minute)
	a := b.Visit(b.Authorize(""))
	if n := logs.FilterMessage("sign-in failed").FilterFieldKey("requests").Len(); n != 2 || !strings.Contains(a.Text, "Error code: store_unavailable") {
		t.Errorf("got %d lines and %s", n, a.Text)
	}
}

// Anybody with a pending sign-in can write the provider's codes into the callback's URL.
func TestErrorCodesInTheURLAreOneLineAMinuteEach(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	logs := observe(s)
	lines := func(code string) []observer.LoggedEntry {
		return logs.FilterMessage("sign-in failed").FilterField(zap.String("cause", code)).All()
	}
	failThrice := func() {
		for _, code := range []string{"invalid_scope", "invalid_request", "access_denied"} {
			for range 3 {
				saysError(code).fail(s, s.NewBrowser())
			}
		}
	}
	failThrice()
	for code, want := range map[string]int{"invalid_scope": 1, "invalid_request": 1, "access_denied": 3} {
		if n := len(lines(code)); n != want {
			t.Errorf("%s: got %d lines within a minute, want %d", code, n, want)
		}
	}
	s.Clock.Advance(2 * time.Minute)
	failThrice()
	if all := lines("invalid_scope"); len(all) != 2 || all[1].ContextMap()["requests"] != int64(3) {
		t.Errorf("got %v, want a second line with requests 3", all)
	}
}

func TestLinesAboutAFailedStoreAreWrittenOnceAMinute(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "session {\n\t\t\tstore storage\n\t\t\tidle_timeout 20m\n\t\t}"})
	logs := observe(s)
	var browsers []*gatewaytest.Browser
	for range 3 {
		browsers = append(browsers, s.NewBrowser().SignIn())
	}
	s.Clock.Advance(15 * time.Minute)
	storage.Full.Store(true)
	use := func() {
		for _, b := range browsers {
			if a := b.Get("/"); a.StatusCode != http.StatusOK {
				t.Errorf("got %d, want 200", a.StatusCode)
			}
			if a := b.Get("/oauth/ready"); a.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("ready: got %d, want 503", a.StatusCode)
			}
		}
	}
	const notReady, notSaved = "not ready: the session store does not answer", "cannot save when a session was last used"
	gatewaytest.Eventually(t, "the store is not ready", func() bool {
		return browsers[0].Get("/oauth/ready").StatusCode == http.StatusServiceUnavailable
	})
	use()
	for _, message := range []string{notReady, notSaved} {
		if n := logs.FilterMessage(message).Len(); n != 1 {
			t.Errorf("%s: got %d lines within a minute, want 1", message, n)
		}
	}
	s.Clock.Advance(2 * time.Minute)
	use()
	for message, requests := range map[string]int64{notReady: 4, notSaved: 3} {
		if all := logs.FilterMessage(message).All(); len(all) != 2 || all[1].ContextMap()["requests"] != requests || all[1].ContextMap()["cause"] != "store_unavailable" {
			t.Errorf("%s: got %v, want a second line with requests %d", message, all, requests)
		}
	}
}

func TestErrorRedirectNamesTheCause(t *testing.T) {
	options := gatewaytest.Options{InTollgate: "public /failed\nerror_redirect /failed"}
	s, impatient := gatewaytest.New(t, options), gatewaytest.New(t, options)
	hurry(impatient)
	for _, c := range failedSignIns() {
		if slices.Contains([]string{"login_loop", "expired"}, c.cause) {
			continue // always a page: see the loop's and the late callback's tests
		}
		at := s
		if c.cause == "timeout" {
			at = impatient
		}
		if a := c.fail(at, at.NewBrowser()); a.StatusCode != http.StatusSeeOther || a.Location() != "/failed?error="+c.cause {
			t.Errorf("%s: got %d to %q", c.cause, a.StatusCode, a.Location())
		}
	}
}

func TestAFailedRefreshLogsItsCause(t *testing.T) {
	for code, fault := range map[string]simulator.Fault{
		"invalid_client":          refusal(401, "invalid_client"),
		"invalid_grant":           refusal(400, "invalid_grant"),
		"rate_limited":            {Status: 429},
		"temporarily_unavailable": {Status: 503},
		"timeout":                 {Hang: true},
		"invalid_response":        {Body: "<html>"},
	} {
		t.Run(code, func(t *testing.T) {
			s := gatewaytest.New(t, gatewaytest.Options{})
			b := s.NewBrowser().SignIn()
			if fault.Hang {
				hurry(s)
			}
			logs := observe(s)
			s.Provider.SetFault(simulator.Refresh, fault)
			s.Clock.Advance(over)
			a := b.Visit("/")
			row, _ := cause.Find(code)
			level, _ := zapcore.ParseLevel(string(row.Level))
			lines := logs.FilterMessage("refresh failed").All()
			if len(lines) != 1 || lines[0].Level != level || lines[0].ContextMap()["cause"] != code || lines[0].ContextMap()["hint"] != row.Hint {
				t.Errorf("got lines %v, want one at %s", lines, level)
			}
			events := logs.FilterMessage("refresh_failed").All()
			if len(events) != 1 || events[0].ContextMap()["reason"] != code {
				t.Errorf("got audit events %v", events)
			}
			if code != "invalid_grant" && (a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, "Error code: "+code)) {
				t.Errorf("got status %d: %s", a.StatusCode, a.Text)
			}
		})
	}
}

func TestACookieThatCannotBeWrittenIsOneLineAMinute(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	logs := observe(s)
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"status":1}`})
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Body: `{"access_token":"` + strings.Repeat("a", 5000) + `","token_type":"Bearer","expires_in":3600}`})
	s.Clock.Advance(over)
	for range 3 {
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("got %d, want 200", a.StatusCode)
		}
	}
	lines := logs.FilterMessage("cannot write the session cookie; the next response tries again").All()
	if len(lines) != 1 || lines[0].ContextMap()["cause"] != "session_too_large" {
		t.Errorf("got lines %v, want one", lines)
	}
}

func TestAFailedReadAndTopUpLogTheirCause(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	logs := observe(s)
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 429})
	s.Provider.SetFault(simulator.TopUp, simulator.Fault{Status: 503})
	b.Send(http.MethodPost, "/oauth/refresh", nil, "Origin: "+s.URL)
	page := b.Visit("/oauth/topup")
	for message, code := range map[string]string{
		"cannot read the user information":       "rate_limited",
		"the provider gave no usable top-up URL": "temporarily_unavailable",
	} {
		lines := logs.FilterMessage(message).All()
		if len(lines) != 1 || lines[0].ContextMap()["cause"] != code {
			t.Errorf("%s: got %v, want cause %s", message, lines, code)
			continue
		}
		if id, _ := lines[0].ContextMap()["request_id"].(string); !requestID.MatchString(id) {
			t.Errorf("%s: got request id %q", message, id)
		}
	}
	if !strings.Contains(page.Text, "Error code: temporarily_unavailable") {
		t.Errorf("got %d: %s", page.StatusCode, page.Text)
	}
}

func TestFailedReadsAreOneLineAMinuteForEachCause(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	logs := observe(s)
	lines := func(code string) []observer.LoggedEntry {
		return logs.FilterMessage("cannot read the user information").FilterField(zap.String("cause", code)).All()
	}
	failThrice := func(status int) {
		s.Provider.ClearFaults()
		var browsers []*gatewaytest.Browser // because a session can ask for one read in a second
		for range 3 {
			browsers = append(browsers, s.NewBrowser().SignIn())
		}
		s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: status})
		for _, b := range browsers {
			b.Send(http.MethodPost, "/oauth/refresh", nil, "Origin: "+s.URL)
		}
	}
	failThrice(http.StatusTooManyRequests)
	failThrice(http.StatusServiceUnavailable)
	for _, code := range []string{"rate_limited", "temporarily_unavailable"} {
		if n := len(lines(code)); n != 1 {
			t.Errorf("%s: got %d lines within a minute, want 1", code, n)
		}
	}
	s.Clock.Advance(2 * time.Minute)
	failThrice(http.StatusTooManyRequests)
	if all := lines("rate_limited"); len(all) != 2 || all[1].ContextMap()["reads"] != int64(3) {
		t.Errorf("got %v, want a second line with reads 3", all)
	}
}

// A read that cannot begin is logged by the handler that is in use, also after a reload.
func TestAReadThatCannotBeginIsLogged(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.NewBrowser().SignIn()
	s.Load()
	logs := observe(s)
	users := s.Handlers[0].Internals().Users
	for range 2 {
		users.Busy(&session.Session{}, account.ErrReadsBusy)
	}
	lines := logs.FilterMessage("cannot read the user information").All()
	if len(lines) != 1 || lines[0].Level != zapcore.WarnLevel || lines[0].ContextMap()["cause"] != "timeout" || !strings.Contains(lines[0].ContextMap()["error"].(string), "too many concurrent reads") {
		t.Errorf("got %v, want one warning with cause timeout", lines)
	}
}

// TestTroubleshootingListsEachCause compares the table of docs/troubleshooting.md with the table
// in the code.
func TestTroubleshootingListsEachCause(t *testing.T) {
	var words map[string]string
	if err := json.Unmarshal([]byte(manualtest.ReadFile(t, "web/lang/en.json")), &words); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, row := range cause.All() {
		heading := words["cause."+row.Words+".title"]
		if row.Status == http.StatusForbidden {
			heading = words["forbidden.heading"]
		}
		fmt.Fprintf(&want, "| `%s` | %s | %d | %s | %s |\n", row.Code, strings.ReplaceAll(heading, "{provider}", "AIHubMix"),
			row.Status, strings.ToUpper(string(row.Level)), row.Hint)
	}
	text := manualtest.ReadFile(t, "docs/troubleshooting.md")
	_, table, _ := strings.Cut(text, "## Causes\n")
	_, table, _ = strings.Cut(table, "|---|---|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if diff := cmp.Diff(want.String(), table+"\n"); diff != "" {
		t.Errorf("the table in docs/troubleshooting.md differs: %s", diff)
	}
}

// logLine finds a text of several words in a table, between backticks.
var logLine = regexp.MustCompile("`([^`|]+ [^`|]+)`")

// TestTroubleshootingNamesLogLinesThatExist looks for the log lines of the manual in the code.
func TestTroubleshootingNamesLogLinesThatExist(t *testing.T) {
	code := sourceCode(t)
	_, symptoms, _ := strings.Cut(manualtest.ReadFile(t, "docs/troubleshooting.md"), "## Symptoms\n")
	symptoms, _, _ = strings.Cut(symptoms, "### Caddy does not start")
	found := 0
	for row := range strings.Lines(symptoms) {
		cells := strings.Split(row, " | ")
		if len(cells) != 3 {
			continue
		}
		says, _, _ := strings.Cut(cells[1], "nginx logs")
		for _, line := range logLine.FindAllStringSubmatch(says, -1) {
			found++
			if !strings.Contains(code, line[1]) {
				t.Errorf("docs/troubleshooting.md: no code logs %q", line[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("got %d log lines, want at least 10", found)
	}
}

// sourceCode returns the Go code of the whole repository, without the tests.
func sourceCode(t *testing.T) string {
	t.Helper()
	var code strings.Builder
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return code.String()
}

func asText(fields map[string]any) string { return fmt.Sprint(fields) }
