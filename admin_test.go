package tollgate_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// operated is a running Caddy with sessions on the server and an admin API.
type operated struct {
	*gatewaytest.Running
	admin string
}

const storeInStorage = "session {\n\t\t\tstore storage\n\t\t}"

func operateCaddy(t *testing.T, inTollgate string) *operated {
	t.Helper()
	o := prepareOperated(t, inTollgate)
	o.Start()
	return o
}

func prepareOperated(t *testing.T, inTollgate string) *operated {
	t.Helper()
	admin := porttest.Address()
	return &operated{gatewaytest.Prepare(t, gatewaytest.RunOptions{Admin: admin, InTollgate: inTollgate}), admin}
}

// operateTwoSites has a second site, whose sessions are kept otherwise.
func operateTwoSites(t *testing.T, first, second string) (*operated, *gatewaytest.Site) {
	t.Helper()
	o := prepareOperated(t, first)
	other := o.addSite(first, second)
	o.Start()
	return o, other
}

// addSite adds a second site to the Caddyfile.
func (o *operated) addSite(first, second string) *gatewaytest.Site {
	o.T.Helper()
	address := porttest.Address()
	_, block, _ := strings.Cut(o.Caddyfile, "\n}\n")
	block = strings.ReplaceAll(block, strings.TrimPrefix(o.URL, "http://"), address)
	o.Caddyfile += strings.Replace(block, first, second, 1)
	o.Provider.SetClient(simulator.Client{
		ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret,
		RedirectURIs: []string{o.URL + "/oauth/callback", "http://" + address + "/oauth/callback"},
	})
	return &gatewaytest.Site{T: o.T, URL: "http://" + address, Provider: o.Provider, ProviderURL: o.ProviderURL, Upstream: o.Upstream}
}

// ask asks the admin API, and checks the status.
func (o *operated) ask(method, uri string, want int) *gatewaytest.Answer {
	o.T.Helper()
	a := o.NewBrowser().Send(method, "http://"+o.admin+uri, nil)
	if a.StatusCode != want || a.Header.Get("Content-Type") != "application/json" {
		o.T.Fatalf("%s %s: status %d, want %d: %s", method, uri, a.StatusCode, want, a.Text)
	}
	return a
}

// list asks for a user's sessions.
func (o *operated) list(user string) adminapi.Sessions {
	o.T.Helper()
	var answer adminapi.Sessions
	if err := json.Unmarshal([]byte(o.ask("GET", "/tollgate/sessions?user="+user, 200).Text), &answer); err != nil {
		o.T.Fatal(err)
	}
	return answer
}

// wantEnded asks for an end, and checks how many sessions it ended.
func (o *operated) wantEnded(uri, want string) {
	o.T.Helper()
	if a := o.ask("DELETE", uri, 200); a.Text != want+"\n" {
		o.T.Errorf("DELETE %s: got %s, want %s", uri, a.Text, want)
	}
}

// wantRefusal asks for what cannot be done, and looks for words in the error.
func (o *operated) wantRefusal(method, uri string, status int, words ...string) {
	o.T.Helper()
	a := o.ask(method, uri, status)
	var refusal struct{ Error string }
	if err := json.Unmarshal([]byte(a.Text), &refusal); err != nil {
		o.T.Errorf("%s %s: %v: %s", method, uri, err, a.Text)
	}
	for _, word := range words {
		if !strings.Contains(refusal.Error, word) {
			o.T.Errorf("%s %s: the error has no %q: %s", method, uri, word, refusal.Error)
		}
	}
}

// breakRecord makes a session's record unreadable, and gives what mends it.
func (o *operated) breakRecord(name string) (mend func()) {
	o.T.Helper()
	place := filepath.Join(o.Storage, "tollgate", "sessions", name)
	if err := errors.Join(os.Rename(place, place+".away"), os.Mkdir(place, 0o700)); err != nil {
		o.T.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Remove(place), os.Rename(place+".away", place)); err != nil {
			o.T.Fatal(err)
		}
	}
}

// isSignedIn asks as a script does.
func isSignedIn(b *gatewaytest.Browser) bool {
	b.T.Helper()
	switch a := b.Get("/"); a.StatusCode {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized:
		return false
	default:
		b.T.Fatalf("status %d: %s", a.StatusCode, a.Text)
		return false
	}
}

func wantSignedIn(t *testing.T, who string, b *gatewaytest.Browser, want bool) {
	t.Helper()
	if got := isSignedIn(b); got != want {
		t.Errorf("%s: signed in: %v, want %v", who, got, want)
	}
}

func TestOperatorEndsTheSessionOfALostLaptop(t *testing.T) {
	o := operateCaddy(t, "session {\n\t\t\tstore storage\n\t\t\tlifetime 10h\n\t\t\tidle_timeout 1h\n\t\t}")
	laptop := o.NewBrowser().SignIn()
	before := time.Now().Unix()
	phone := o.NewBrowser().SignIn()
	maria := o.NewBrowser()
	maria.Follow(maria.Visit("/oauth/start").Location() + "&login_hint=maria")

	sessions := o.list(gatewaytest.UserID).Sessions
	if len(sessions) != 2 || len(o.list("67890").Sessions) != 1 || len(o.list("1").Sessions) != 0 {
		t.Fatalf("listed: %+v", sessions)
	}
	newest, oldest := sessions[0], sessions[1]
	if newest.User != gatewaytest.UserID || newest.Site != o.URL || !adminapi.IsName(newest.Session) ||
		newest.CreatedAt < before || newest.CreatedAt > time.Now().Unix() || newest.LastSeenAt != newest.CreatedAt ||
		newest.ExpiresAt != newest.CreatedAt+3600 {
		t.Errorf("the phone's session: %+v", newest)
	}
	if text := o.ask("GET", "/tollgate/sessions?user=1", 200).Text; text != `{"sessions":[]}`+"\n" {
		t.Errorf("of nobody: %s", text)
	}

	copied := laptop.Copy()
	wantSignedIn(t, "the copy of the laptop's cookie", copied, true)
	o.wantEnded("/tollgate/sessions/"+oldest.Session, `{"ended":1}`)
	wantSignedIn(t, "the laptop", laptop, false)
	wantSignedIn(t, "the copy of the laptop's cookie", copied, false)
	wantSignedIn(t, "the phone", phone, true)
	if left := o.list(gatewaytest.UserID).Sessions; len(left) != 1 || left[0] != newest {
		t.Errorf("left: %+v", left)
	}
	o.wantRefusal("DELETE", "/tollgate/sessions/"+oldest.Session, 404, oldest.Session, "may have ended already")

	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":1}`)
	wantSignedIn(t, "the phone", phone, false)
	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":0}`)
	wantSignedIn(t, "maria", maria, true)
	if a := laptop.Follow("/"); a.StatusCode != 200 {
		t.Errorf("signing in anew: %d: %s", a.StatusCode, a.Text)
	}

	log := manualtest.ReadFile(t, filepath.Join(o.Logs, "default.log"))
	var events []map[string]any
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"session_revoked"`) {
			event := map[string]any{}
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatal(err)
			}
			events = append(events, event)
		}
	}
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	for i, want := range []map[string]any{
		{"session": oldest.Session, "user_id": ""},
		{"session": newest.Session, "user_id": gatewaytest.UserID},
	} {
		want["logger"], want["reason"], want["client_ip"] = "http.handlers.tollgate.audit", "admin", "127.0.0.1"
		for name, value := range want {
			if events[i][name] != value {
				t.Errorf("event %d: %s is %v, want %v", i, name, events[i][name], value)
			}
		}
	}
}

func TestEndedSessionIsRefusedByOtherProcessesWithinASecond(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.NewBrowser().SignIn()
	secret, err := keys.ParseSecret(gatewaytest.Secret)
	if err != nil {
		t.Fatal(err)
	}
	source, err := keys.NewSource([][]byte{secret}, nil, gatewaytest.ClientID, o.URL+"/oauth/callback", nil)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := records.NewTickets(session.Env{Keys: source.Ring, Ended: session.NewEndedNames(time.Now), Lifetime: time.Hour, Now: time.Now},
		storage.NewRecords(&certmagic.FileStorage{Path: o.Storage}), session.Takeover{})
	t.Cleanup(elsewhere.Close)

	value := strings.TrimPrefix(b.Cookies()["tollgate"], "1.") // of one part
	if recordstest.MustLoad(t, elsewhere, value) == nil {
		t.Fatalf("the other process finds no session for the ticket of %d bytes", len(value))
	}
	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":1}`)
	began := time.Now()
	gatewaytest.Eventually(t, "the other process refuses the session", func() bool { return recordstest.MustLoad(t, elsewhere, value) == nil })
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestARefreshDoesNotBringAnEndedSessionBack(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.NewBrowser().SignIn()
	copied := b.Copy()
	o.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 500 * time.Millisecond, DelayAfterWork: true})
	o.Provider.ExpireAccessTokens()
	answered := make(chan int)
	go func() { answered <- b.Send("POST", "/oauth/refresh", nil).StatusCode }()
	gatewaytest.Eventually(t, "the refresh is under way", func() bool { return o.Provider.Count(simulator.Refresh) == 1 })
	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":1}`)
	wantSignedIn(t, "while the refresh is under way", copied, false)
	if status := <-answered; status != http.StatusUnauthorized {
		t.Errorf("the request that waited got %d", status)
	}
	wantSignedIn(t, "after the refresh", b, false)
	wantSignedIn(t, "the copy", copied, false)
	if left := o.list(gatewaytest.UserID).Sessions; len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestUnsavedTokensDoNotKeepAnEndedSessionAlive(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.NewBrowser().SignIn()
	o.Provider.ExpireAccessTokens()
	if a := b.Send("POST", "/oauth/refresh", nil); a.StatusCode != 200 || o.Provider.Count(simulator.Refresh) != 1 {
		t.Fatalf("status %d, %d refreshes", a.StatusCode, o.Provider.Count(simulator.Refresh))
	}
	wantSignedIn(t, "with renewed tokens", b, true)
	o.wantEnded("/tollgate/sessions/"+o.list(gatewaytest.UserID).Sessions[0].Session, `{"ended":1}`)
	wantSignedIn(t, "afterwards", b, false)
}

func TestAdminAPIRefusesInvalidRequests(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.NewBrowser().SignIn()
	name := o.list(gatewaytest.UserID).Sessions[0].Session
	for _, uri := range []string{"", "?", "?user=", "?user", "?usr=12345", "?user=12345&user=67890", "?user=12345&site=x", "?user=12345;x"} {
		o.wantRefusal("GET", "/tollgate/sessions"+uri, 400, "/tollgate/sessions?user=<id>")
		o.wantRefusal("DELETE", "/tollgate/sessions"+uri, 400, "/tollgate/sessions?user=<id>")
	}
	for _, made := range []string{"", "12345", name[:31], name + "0", strings.ToUpper(name[:16]) + "ABCDEF0123456789", name[:31] + "g"} {
		o.wantRefusal("DELETE", "/tollgate/sessions/"+made, 404, "32 hex digits")
	}
	o.wantRefusal("DELETE", "/tollgate/sessions/"+name+"?user=12345", 400, "either a session or a user")
	o.wantRefusal("DELETE", "/tollgate/sessions/"+strings.Repeat("0", 32), 404, "there is no session")
	for _, uri := range []string{"/tollgate/", "/tollgate/users", "/tollgate/sessionsx", "/tollgate/sessions/" + name + "/x"} {
		o.wantRefusal("GET", uri, 404, "/tollgate/sessions")
		o.wantRefusal("DELETE", uri, 404, "/tollgate/sessions")
	}
	for method, allowed := range map[string]map[string]string{
		"/tollgate/sessions?user=12345": {"POST": "GET, DELETE", "PUT": "GET, DELETE", "PATCH": "GET, DELETE"},
		"/tollgate/sessions/" + name:    {"GET": "DELETE", "POST": "DELETE"},
	} {
		for wrong, allow := range allowed {
			if got := o.ask(wrong, method, 405).Header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q", wrong, method, got)
			}
		}
	}
	a := o.NewBrowser().Send("DELETE", "http://"+o.admin+"/tollgate/sessions?user=12345", nil, "Origin: https://evil.example")
	if a.StatusCode != http.StatusForbidden {
		t.Errorf("another origin: status %d", a.StatusCode)
	}
	wantSignedIn(t, "after all that", b, true)
}

func TestEndingSessionsInCookiesIsAnError(t *testing.T) {
	o := operateCaddy(t, "")
	b := o.NewBrowser().SignIn()
	for method, uri := range map[string]string{
		"GET":    "/tollgate/sessions?user=" + gatewaytest.UserID,
		"DELETE": "/tollgate/sessions?user=" + gatewaytest.UserID,
	} {
		o.wantRefusal(method, uri, 409, o.URL, "sessions in cookies cannot be listed or ended", "store storage", "store redis")
	}
	o.wantRefusal("DELETE", "/tollgate/sessions/"+strings.Repeat("0", 32), 409, o.URL, "store storage")
	wantSignedIn(t, "the session in a cookie", b, true)
}

func TestAdminResponseReportsSitesWithCookieSessions(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, "")
	onServer, inCookie := o.NewBrowser().SignIn(), other.NewBrowser().SignIn()
	answer := o.list(gatewaytest.UserID)
	if len(answer.Sessions) != 1 || answer.Sessions[0].Site != o.URL || !slices.Equal(answer.CookieSites, []string{other.URL}) {
		t.Errorf("listed: %+v", answer)
	}
	o.wantRefusal("DELETE", "/tollgate/sessions/"+strings.Repeat("0", 32), 404, "there is no session", other.URL, "store storage")
	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":1,"cookie_sites":["`+other.URL+`"]}`)
	wantSignedIn(t, "on the server", onServer, false)
	wantSignedIn(t, "in the cookie", inCookie, true)
	onServer.SignIn()
	o.wantEnded("/tollgate/sessions?all=true", `{"ended":1,"cookie_sites":["`+other.URL+`"]}`)
	wantSignedIn(t, "in the cookie", inCookie, true)
}

func TestAdminAPIReachesAllSitesOfTheProcess(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, storeInStorage)
	first, second := o.NewBrowser().SignIn(), other.NewBrowser().SignIn()
	sessions := o.list(gatewaytest.UserID).Sessions
	if len(sessions) != 2 || sessions[0].Site != other.URL || sessions[1].Site != o.URL {
		t.Fatalf("listed: %+v", sessions)
	}
	for i, b := range []*gatewaytest.Browser{second, first} {
		o.wantEnded("/tollgate/sessions/"+sessions[i].Session, `{"ended":1}`)
		// Which site's store is asked first is open; the other's is as far as another
		// process's.
		gatewaytest.Eventually(t, "the session is over at "+sessions[i].Site, func() bool { return !isSignedIn(b) })
	}
}

func TestFailingStoreIsReportedAndDoesNotBlockOtherSites(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, storeInStorage)
	here, there := o.NewBrowser().SignIn(), other.NewBrowser().SignIn()
	broken := o.list(gatewaytest.UserID).Sessions[1]
	mend := o.breakRecord(broken.Session)
	fault := "the session store of " + o.URL + " does not answer"
	o.wantRefusal("GET", "/tollgate/sessions?user="+gatewaytest.UserID, 503, fault)
	o.wantRefusal("DELETE", "/tollgate/sessions?user="+gatewaytest.UserID, 503, fault, "ended all the same: 1;")
	o.wantRefusal("DELETE", "/tollgate/sessions/"+broken.Session, 503, "does not answer")
	wantSignedIn(t, "where the store answers", there, false)
	mend()
	wantSignedIn(t, "where the store failed", here, true)
	if left := o.list(gatewaytest.UserID).Sessions; len(left) != 1 || left[0] != broken {
		t.Errorf("left: %+v", left)
	}
	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":1}`)
	wantSignedIn(t, "in the end", here, false)
}

func TestSessionIsListedOnceDuringAReload(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.NewBrowser().SignIn()
	o.NewBrowser().SignIn()
	provisionBeside := func(caddyfile string) []*tollgate.Handler {
		_, handlers, err := gatewaytest.Provision(caddyfile)
		if err != nil || len(handlers) != 1 {
			t.Fatal(handlers, err)
		}
		t.Cleanup(func() { handlers[0].Cleanup() })
		return handlers
	}
	next := provisionBeside(o.Caddyfile)
	sessions := o.list(gatewaytest.UserID).Sessions
	if len(sessions) != 2 {
		t.Errorf("listed: %+v", sessions)
	}
	o.wantEnded("/tollgate/sessions/"+sessions[1].Session, `{"ended":1}`)
	gatewaytest.Eventually(t, "the session is over", func() bool { return !isSignedIn(b) })
	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":1}`)
	next[0].Cleanup()

	cookies := provisionBeside(strings.Replace(o.Caddyfile, storeInStorage, "", 1))
	if answer := o.list(gatewaytest.UserID); len(answer.CookieSites) != 1 {
		t.Errorf("with a cookie store: %+v", answer)
	}
	cookies[0].Cleanup()
	if answer := o.list(gatewaytest.UserID); len(answer.CookieSites) != 0 {
		t.Errorf("after its end: %+v", answer)
	}
}

// heldRecords are records that may be asked only while they are held open.
type heldRecords struct {
	records.Store
	t    *testing.T
	held atomic.Int64
}

func (h *heldRecords) Hold() func() {
	h.held.Add(1)
	release := h.Store.Hold()
	return func() {
		h.held.Add(-1)
		release()
	}
}

func (h *heldRecords) Index(ctx context.Context, user string) ([]string, error) {
	if h.held.Load() == 0 {
		h.t.Errorf("Index(%s) was called without a Hold: got %d holds, want at least 1", user, h.held.Load())
	}
	return h.Store.Index(ctx, user)
}

func TestStoreStaysOpenDuringAnAdminRequest(t *testing.T) {
	o := prepareOperated(t, storeInStorage)
	_, handlers, err := gatewaytest.Provision(o.Caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handlers[0].Cleanup() })
	watched := &heldRecords{Store: handlers[0].Internals().Store.(*records.Tickets).Records, t: t}
	handlers[0].Internals().Store.(*records.Tickets).Records = watched
	o.Start()
	for uri, status := range map[string]int{"?user=1": 200, "": 400, "?user=2": 200, "/" + strings.Repeat("0", 32): 404} {
		o.ask("DELETE", "/tollgate/sessions"+uri, status)
		if held := watched.held.Load(); held != 0 {
			t.Errorf("%s: held by %d afterwards", uri, held)
		}
	}
}

func TestAdminAPIWithoutASiteIsAnError(t *testing.T) {
	o := prepareOperated(t, "")
	global, _, _ := strings.Cut(o.Caddyfile, "\n}\n")
	o.Caddyfile = global + "\n}\n:0 {\n\tbind 127.0.0.1\n}\n"
	o.Start()
	o.wantRefusal("GET", "/tollgate/sessions?user=12345", 404, "no site of this Caddy has tollgate")
	o.wantRefusal("DELETE", "/tollgate/sessions?user=12345", 404, "no site of this Caddy has tollgate")
}

func TestAnOperatorEndsTheStreamsOfASession(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.NewBrowser().SignIn()
	ws, events := webSocket(b, o.URL+"/stream/ws"), eventStreamOf(b, o.URL+"/stream/events")
	o.wantEnded("/tollgate/sessions?user="+gatewaytest.UserID, `{"ended":1}`)
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
}

func TestAllSessionsOfAllSitesEndAtOnce(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, storeInStorage)
	first, second := o.NewBrowser().SignIn(), other.NewBrowser().SignIn()
	elsewhere := gatewaytest.New(t, gatewaytest.Options{InTollgate: storeInStorage, Storage: "file_system " + o.Storage})
	third := elsewhere.NewBrowser().SignIn()
	ws, events := webSocket(second, other.URL+"/stream/ws"), eventStreamOf(first, o.URL+"/stream/events")

	for _, query := range []string{"all=false", "all", "all=true&user=1", "user=1&all=true", "all=true&all=true"} {
		o.wantRefusal("DELETE", "/tollgate/sessions?"+query, 400, "all=true")
	}
	o.wantRefusal("GET", "/tollgate/sessions?all=true", 400, "user=<id>")
	commandtest.WantError(t, o.run("end", "--all"), "--yes")
	commandtest.WantError(t, o.run("end", "--all", "--yes", "--user", "1"), "--all")
	commandtest.WantError(t, o.run("end", "--all", "--yes", strings.Repeat("0", 32)), "--all")
	wantSignedIn(t, "before", first, true)

	commandtest.WantOutput(t, o.run("end", "--all", "--yes"), "3 sessions ended\n", "")
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
	wantSignedIn(t, "the first site", first, false)
	wantSignedIn(t, "the second site", second, false)
	gatewaytest.Eventually(t, "the other gateway refuses its session", func() bool { return !isSignedIn(third) })
	commandtest.WantOutput(t, o.run("end", "--all", "--yes"), "0 sessions ended\n", "")
	wantSignedIn(t, "a new sign-in", first.SignIn(), true)
}

func TestAllSessionsInRedisEndAtBothGateways(t *testing.T) {
	server := redistest.Start(t)
	o := operateCaddy(t, "session {\nstore redis {\naddress "+server.Address()+"\n}\n}")
	elsewhere := redisSite(t, server)
	var browsers []*gatewaytest.Browser
	for range 20 {
		browsers = append(browsers, o.NewBrowser().SignIn())
	}
	third := elsewhere.NewBrowser().SignIn()
	server.Must("SET", "tollgate:other", "x")
	server.Must("SET", "session:other", "x")
	o.wantEnded("/tollgate/sessions?all=true", `{"ended":21}`)
	for _, b := range browsers {
		wantSignedIn(t, "at the gateway that was asked", b, false)
	}
	gatewaytest.Eventually(t, "the other gateway refuses its session", func() bool { return !isSignedIn(third) })
	if left := server.Must("EXISTS", "tollgate:other", "session:other"); left != "2" {
		t.Errorf("got %s keys that are no sessions, want 2", left)
	}
	server.Kill()
	o.wantRefusal("DELETE", "/tollgate/sessions?all=true", 503, "does not answer", "try again")
}

func TestAllSessionsInCookiesEndWithTheSecret(t *testing.T) {
	o := operateCaddy(t, "")
	commandtest.WantError(t, o.run("end", "--all", "--yes"), o.URL, "replace its `secret`")
}
