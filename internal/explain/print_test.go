package explain_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/explain"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// now is the time of these tests.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// signedIn is a session that began an hour before now. Its access token ends in two hours.
func signedIn(refreshToken string) *session.Session {
	var fields [oauth.FieldCount]oauth.Scalar
	fields[oauth.FieldID], fields[oauth.FieldBalance] = "7", `"1.50"`
	begun := now.Add(-time.Hour)
	tokens := oauth.Tokens{Access: "an-access-token", Refresh: refreshToken, Issued: begun, Expires: now.Add(2 * time.Hour)}
	return session.NewSession(begun, tokens, oauth.NewUserInfo(fields, begun))
}

func TestASessionIsPrintedWithItsClocks(t *testing.T) {
	s := signedIn("")
	e := &explain.Explanation{Site: "https://app.example.com", LeftOut: true, Cookie: "a session", Outcome: "passes"}
	e.Session = explain.Describe(s, "fresh", 30*24*time.Hour, 90*time.Minute)
	var text strings.Builder
	if err := e.Print(&text, now); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"matcher leaves this request out, so it counts as public",
		"balance 1.50 (fresh), read 2026-06-01 11:00:00 UTC (1h0m0s ago)",
		"access token 15 bytes, SHA-256 begins with 6221cf0f; ends 2026-06-01 14:00:00 UTC (in 2h0m)",
		"refresh token none",
		"ends by lifetime 2026-07-01 11:00:00 UTC (in 29d)",
		"ends by idle_timeout 2026-06-01 12:30:00 UTC (in 30m0s), the first",
		"ends by the access token, which cannot be refreshed 2026-06-01 14:00:00 UTC (in 2h0m)",
	} {
		found := slices.ContainsFunc(strings.Split(text.String(), "\n"), func(got string) bool { return strings.Join(strings.Fields(got), " ") == line })
		if !found {
			t.Errorf("no line %q in:\n%s", line, text.String())
		}
	}
}

func TestDoubtsSayWhatTheProviderHasToConfirm(t *testing.T) {
	good := signedIn("a-refresh-token")
	unconfirmed := *good
	unconfirmed.User = oauth.UserInfo{}
	for name, test := range map[string]struct {
		of   *session.Session
		at   time.Time
		want string // words of the only note; empty: no note
	}{
		"a good token":             {good, now, ""},
		"shortly before the end":   {good, now.Add(119 * time.Minute), "a refresh of the access token is due"},
		"after the end":            {good, now.Add(3 * time.Hour), "the access token has ended"},
		"without a refresh token":  {signedIn(""), now.Add(119 * time.Minute), ""},
		"taken over from a cookie": {&unconfirmed, now, "has not confirmed its user"},
	} {
		notes := explain.Doubts(test.of, test.at, 5*time.Minute)
		if test.want == "" && len(notes) != 0 || test.want != "" && (len(notes) != 1 || !strings.Contains(notes[0], test.want)) {
			t.Errorf("%s: got %q, want %q", name, notes, test.want)
		}
	}
}

func TestEachReasonHasWords(t *testing.T) {
	for reason, want := range map[string]string{
		"balance": "the balance is too low", "domain": "e-mail address is not in the list", "user": "user's id is not in the list",
		"status": "the user is not active", "": "",
	} {
		if got := explain.LackOf(reason); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%q: got %q, want %q", reason, got, want)
		}
	}
}

func TestExplainNamesOnlyThePatternsThatCoverAPath(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{InTollgate: "login_page on\npublic /open/* *.css\noptional /open/x\nrequire /paid {\nbalance 1\nreserve\n}"})
	if got := e.explain("/open/y").Paths[0].By; !slices.Equal(got, []string{"`public /open/*`"}) {
		t.Errorf("got %q, want the first pattern only", got)
	}
	if got := e.explain("/", "--header", "Accept: text/html"); got.Status != 401 || !strings.Contains(got.Outcome, "the sign-in page") {
		t.Errorf("with login_page: got %d %q", got.Status, got.Outcome)
	}
	b := e.NewBrowser()
	b.Follow("/oauth/start")
	got := e.explain("/paid", e.cookieOf(b)...)
	if !slices.ContainsFunc(got.Notes, func(note string) bool { return strings.Contains(note, "the ledger is asked") }) {
		t.Errorf("a rule with a reserve: the notes are %q", got.Notes)
	}
}
