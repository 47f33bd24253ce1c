package tollgate

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

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// operated is a running Caddy with sessions on the server and an admin API.
type operated struct {
	*running
	admin string
}

const storeInStorage = "session {\n\t\t\tstore storage\n\t\t}"

func operateCaddy(t *testing.T, inTollgate string) *operated {
	t.Helper()
	o := prepareOperated(t, inTollgate)
	o.start()
	return o
}

func prepareOperated(t *testing.T, inTollgate string) *operated {
	t.Helper()
	admin := freeAddress()
	return &operated{prepareCaddy(t, runningOptions{admin: admin, inTollgate: inTollgate}), admin}
}

// operateTwoSites has a second site, whose sessions are kept otherwise.
func operateTwoSites(t *testing.T, first, second string) (*operated, *site) {
	t.Helper()
	o := prepareOperated(t, first)
	other := o.addSite(first, second)
	o.start()
	return o, other
}

// addSite adds a second site to the Caddyfile.
func (o *operated) addSite(first, second string) *site {
	o.t.Helper()
	address := freeAddress()
	_, block, _ := strings.Cut(o.caddyfile, "\n}\n")
	block = strings.ReplaceAll(block, strings.TrimPrefix(o.url, "http://"), address)
	o.caddyfile += strings.Replace(block, first, second, 1)
	o.provider.SetClient(simulator.Client{
		ID: testClientID, Secret: testClientSecret,
		RedirectURIs: []string{o.url + "/oauth/callback", "http://" + address + "/oauth/callback"},
	})
	return &site{t: o.t, url: "http://" + address, provider: o.provider, providerURL: o.providerURL, upstream: o.upstream}
}

// ask asks the admin API, and checks the status.
func (o *operated) ask(method, uri string, want int) *answer {
	o.t.Helper()
	a := o.newBrowser().do(method, "http://"+o.admin+uri, nil)
	if a.StatusCode != want || a.Header.Get("Content-Type") != "application/json" {
		o.t.Fatalf("%s %s: status %d, want %d: %s", method, uri, a.StatusCode, want, a.text)
	}
	return a
}

// list asks for a user's sessions.
func (o *operated) list(user string) adminapi.Sessions {
	o.t.Helper()
	var answer adminapi.Sessions
	if err := json.Unmarshal([]byte(o.ask("GET", "/tollgate/sessions?user="+user, 200).text), &answer); err != nil {
		o.t.Fatal(err)
	}
	return answer
}

// wantEnded asks for an end, and checks how many sessions it ended.
func (o *operated) wantEnded(uri, want string) {
	o.t.Helper()
	if a := o.ask("DELETE", uri, 200); a.text != want+"\n" {
		o.t.Errorf("DELETE %s: got %s, want %s", uri, a.text, want)
	}
}

// wantRefusal asks for what cannot be done, and looks for words in the error.
func (o *operated) wantRefusal(method, uri string, status int, words ...string) {
	o.t.Helper()
	a := o.ask(method, uri, status)
	var refusal struct{ Error string }
	if err := json.Unmarshal([]byte(a.text), &refusal); err != nil {
		o.t.Errorf("%s %s: %v: %s", method, uri, err, a.text)
	}
	for _, word := range words {
		if !strings.Contains(refusal.Error, word) {
			o.t.Errorf("%s %s: the error has no %q: %s", method, uri, word, refusal.Error)
		}
	}
}

// breakRecord makes a session's record unreadable, and gives what mends it.
func (o *operated) breakRecord(name string) (mend func()) {
	o.t.Helper()
	place := filepath.Join(o.storage, "tollgate", "sessions", name)
	if err := errors.Join(os.Rename(place, place+".away"), os.Mkdir(place, 0o700)); err != nil {
		o.t.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Remove(place), os.Rename(place+".away", place)); err != nil {
			o.t.Fatal(err)
		}
	}
}

// isSignedIn asks as a script does.
func isSignedIn(b *visitor) bool {
	b.t.Helper()
	switch a := b.Get("/"); a.StatusCode {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized:
		return false
	default:
		b.t.Fatalf("status %d: %s", a.StatusCode, a.text)
		return false
	}
}

func wantSignedIn(t *testing.T, who string, b *visitor, want bool) {
	t.Helper()
	if got := isSignedIn(b); got != want {
		t.Errorf("%s: signed in: %v, want %v", who, got, want)
	}
}

func TestOperatorEndsTheSessionOfALostLaptop(t *testing.T) {
	o := operateCaddy(t, "session {\n\t\t\tstore storage\n\t\t\tlifetime 10h\n\t\t\tidle_timeout 1h\n\t\t}")
	laptop := o.newBrowser().signIn()
	before := time.Now().Unix()
	phone := o.newBrowser().signIn()
	maria := o.newBrowser()
	maria.follow(maria.visit("/oauth/start").location() + "&login_hint=maria")

	sessions := o.list(testUserID).Sessions
	if len(sessions) != 2 || len(o.list("67890").Sessions) != 1 || len(o.list("1").Sessions) != 0 {
		t.Fatalf("listed: %+v", sessions)
	}
	newest, oldest := sessions[0], sessions[1]
	if newest.User != testUserID || newest.Site != o.url || !adminapi.IsName(newest.Session) ||
		newest.CreatedAt < before || newest.CreatedAt > time.Now().Unix() || newest.LastSeenAt != newest.CreatedAt ||
		newest.ExpiresAt != newest.CreatedAt+3600 {
		t.Errorf("the phone's session: %+v", newest)
	}
	if text := o.ask("GET", "/tollgate/sessions?user=1", 200).text; text != `{"sessions":[]}`+"\n" {
		t.Errorf("of nobody: %s", text)
	}

	copied := laptop.copyOf()
	wantSignedIn(t, "the copy of the laptop's cookie", copied, true)
	o.wantEnded("/tollgate/sessions/"+oldest.Session, `{"ended":1}`)
	wantSignedIn(t, "the laptop", laptop, false)
	wantSignedIn(t, "the copy of the laptop's cookie", copied, false)
	wantSignedIn(t, "the phone", phone, true)
	if left := o.list(testUserID).Sessions; len(left) != 1 || left[0] != newest {
		t.Errorf("left: %+v", left)
	}
	o.wantRefusal("DELETE", "/tollgate/sessions/"+oldest.Session, 404, oldest.Session, "may have ended already")

	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":1}`)
	wantSignedIn(t, "the phone", phone, false)
	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":0}`)
	wantSignedIn(t, "maria", maria, true)
	if a := laptop.follow("/"); a.StatusCode != 200 {
		t.Errorf("signing in anew: %d: %s", a.StatusCode, a.text)
	}

	log := readFile(t, filepath.Join(o.logs, "default.log"))
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
		{"session": oldest.Session, "user_id": nil},
		{"session": newest.Session, "user_id": testUserID},
	} {
		want["logger"], want["reason"], want["client_ip"] = "http.handlers.tollgate.audit", "admin", "127.0.0.1"
		for name, value := range want {
			if events[i][name] != value {
				t.Errorf("event %d: %s is %v, want %v", i, name, events[i][name], value)
			}
		}
	}
}

func TestAnEndedSessionIsRefusedElsewhereWithinASecond(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.newBrowser().signIn()
	secret, err := keys.ParseSecret(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing([][]byte{secret}, testClientID, o.url+"/oauth/callback")
	if err != nil {
		t.Fatal(err)
	}
	source := keys.SourceOf(ring)
	elsewhere := records.NewTickets(session.Env{Keys: source.Ring, Ended: session.NewEndedNames(time.Now), Lifetime: time.Hour, Now: time.Now},
		storage.NewRecords(&certmagic.FileStorage{Path: o.storage}), session.Takeover{})
	t.Cleanup(elsewhere.Close)

	value := strings.TrimPrefix(b.cookies()["tollgate"], "1.") // of one part
	if recordstest.MustLoad(t, elsewhere, value) == nil {
		t.Fatal("the other process does not know the session")
	}
	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":1}`)
	began := time.Now()
	eventually(t, "the other process refuses the session", func() bool { return recordstest.MustLoad(t, elsewhere, value) == nil })
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestARefreshDoesNotBringAnEndedSessionBack(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.newBrowser().signIn()
	copied := b.copyOf()
	o.provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 500 * time.Millisecond, DelayAfterWork: true})
	o.provider.ExpireAccessTokens()
	answered := make(chan int)
	go func() { answered <- b.do("POST", "/oauth/refresh", nil).StatusCode }()
	eventually(t, "the refresh is under way", func() bool { return o.provider.Count(simulator.Refresh) == 1 })
	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":1}`)
	wantSignedIn(t, "while the refresh is under way", copied, false)
	if status := <-answered; status != http.StatusUnauthorized {
		t.Errorf("the request that waited got %d", status)
	}
	wantSignedIn(t, "after the refresh", b, false)
	wantSignedIn(t, "the copy", copied, false)
	if left := o.list(testUserID).Sessions; len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestTokensInMemoryDoNotKeepAnEndedSession(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.newBrowser().signIn()
	o.provider.ExpireAccessTokens()
	if a := b.do("POST", "/oauth/refresh", nil); a.StatusCode != 200 || o.provider.Count(simulator.Refresh) != 1 {
		t.Fatalf("status %d, %d refreshes", a.StatusCode, o.provider.Count(simulator.Refresh))
	}
	wantSignedIn(t, "with renewed tokens", b, true)
	o.wantEnded("/tollgate/sessions/"+o.list(testUserID).Sessions[0].Session, `{"ended":1}`)
	wantSignedIn(t, "afterwards", b, false)
}

func TestTheAdminAPIRefusesWhatItDoesNotUnderstand(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.newBrowser().signIn()
	name := o.list(testUserID).Sessions[0].Session
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
	a := o.newBrowser().do("DELETE", "http://"+o.admin+"/tollgate/sessions?user=12345", nil, "Origin: https://evil.example")
	if a.StatusCode != http.StatusForbidden {
		t.Errorf("another origin: status %d", a.StatusCode)
	}
	wantSignedIn(t, "after all that", b, true)
}

func TestSessionsInCookiesCannotBeEndedAndThatIsSaid(t *testing.T) {
	o := operateCaddy(t, "")
	b := o.newBrowser().signIn()
	for method, uri := range map[string]string{
		"GET":    "/tollgate/sessions?user=" + testUserID,
		"DELETE": "/tollgate/sessions?user=" + testUserID,
	} {
		o.wantRefusal(method, uri, 409, o.url, "sessions in cookies cannot be listed or ended", "store storage", "store redis")
	}
	o.wantRefusal("DELETE", "/tollgate/sessions/"+strings.Repeat("0", 32), 409, o.url, "store storage")
	wantSignedIn(t, "the session in a cookie", b, true)
}

func TestAnAnswerWithoutTheCookieSitesSaysSo(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, "")
	onServer, inCookie := o.newBrowser().signIn(), other.newBrowser().signIn()
	answer := o.list(testUserID)
	if len(answer.Sessions) != 1 || answer.Sessions[0].Site != o.url || !slices.Equal(answer.CookieSites, []string{other.url}) {
		t.Errorf("listed: %+v", answer)
	}
	o.wantRefusal("DELETE", "/tollgate/sessions/"+strings.Repeat("0", 32), 404, "there is no session", other.url, "store storage")
	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":1,"cookie_sites":["`+other.url+`"]}`)
	wantSignedIn(t, "on the server", onServer, false)
	wantSignedIn(t, "in the cookie", inCookie, true)
}

func TestAllSitesOfAProcessAreReached(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, storeInStorage)
	first, second := o.newBrowser().signIn(), other.newBrowser().signIn()
	sessions := o.list(testUserID).Sessions
	if len(sessions) != 2 || sessions[0].Site != other.url || sessions[1].Site != o.url {
		t.Fatalf("listed: %+v", sessions)
	}
	for i, b := range []*visitor{second, first} {
		o.wantEnded("/tollgate/sessions/"+sessions[i].Session, `{"ended":1}`)
		// Which site's store is asked first is open; the other's is as far as another
		// process's.
		eventually(t, "the session is over at "+sessions[i].Site, func() bool { return !isSignedIn(b) })
	}
}

func TestFailingStoreIsReportedAndDoesNotBlockOtherSites(t *testing.T) {
	o, other := operateTwoSites(t, storeInStorage, storeInStorage)
	here, there := o.newBrowser().signIn(), other.newBrowser().signIn()
	broken := o.list(testUserID).Sessions[1]
	mend := o.breakRecord(broken.Session)
	fault := "the session store of " + o.url + " does not answer"
	o.wantRefusal("GET", "/tollgate/sessions?user="+testUserID, 503, fault)
	o.wantRefusal("DELETE", "/tollgate/sessions?user="+testUserID, 503, fault, "ended all the same: 1;")
	o.wantRefusal("DELETE", "/tollgate/sessions/"+broken.Session, 503, "does not answer")
	wantSignedIn(t, "where the store answers", there, false)
	mend()
	wantSignedIn(t, "where the store failed", here, true)
	if left := o.list(testUserID).Sessions; len(left) != 1 || left[0] != broken {
		t.Errorf("left: %+v", left)
	}
	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":1}`)
	wantSignedIn(t, "in the end", here, false)
}

func TestWhileAReloadGoesOnEachSessionIsListedOnce(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.newBrowser().signIn()
	o.newBrowser().signIn()
	provisionBeside := func(caddyfile string) []*Handler {
		_, handlers, err := provision(caddyfile)
		if err != nil || len(handlers) != 1 {
			t.Fatal(handlers, err)
		}
		t.Cleanup(func() { handlers[0].Cleanup() })
		return handlers
	}
	next := provisionBeside(o.caddyfile)
	sessions := o.list(testUserID).Sessions
	if len(sessions) != 2 {
		t.Errorf("listed: %+v", sessions)
	}
	o.wantEnded("/tollgate/sessions/"+sessions[1].Session, `{"ended":1}`)
	eventually(t, "the session is over", func() bool { return !isSignedIn(b) })
	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":1}`)
	next[0].Cleanup()

	cookies := provisionBeside(strings.Replace(o.caddyfile, storeInStorage, "", 1))
	if answer := o.list(testUserID); len(answer.CookieSites) != 1 {
		t.Errorf("with a cookie store: %+v", answer)
	}
	cookies[0].Cleanup()
	if answer := o.list(testUserID); len(answer.CookieSites) != 0 {
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
		h.t.Error("the store was asked, and a reload might have closed it")
	}
	return h.Store.Index(ctx, user)
}

func TestAStoreStaysOpenWhileItIsAsked(t *testing.T) {
	o := prepareOperated(t, storeInStorage)
	_, handlers, err := provision(o.caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handlers[0].Cleanup() })
	watched := &heldRecords{Store: handlers[0].Internals().Store.(*records.Tickets).Records, t: t}
	handlers[0].Internals().Store.(*records.Tickets).Records = watched
	o.start()
	for uri, status := range map[string]int{"?user=1": 200, "": 400, "?user=2": 200, "/" + strings.Repeat("0", 32): 404} {
		o.ask("DELETE", "/tollgate/sessions"+uri, status)
		if held := watched.held.Load(); held != 0 {
			t.Errorf("%s: held by %d afterwards", uri, held)
		}
	}
}

func TestWithoutASiteTheAdminAPISaysSo(t *testing.T) {
	o := prepareOperated(t, "")
	global, _, _ := strings.Cut(o.caddyfile, "\n}\n")
	o.caddyfile = global + "\n}\n:0 {\n\tbind 127.0.0.1\n}\n"
	o.start()
	o.wantRefusal("GET", "/tollgate/sessions?user=12345", 404, "no site of this Caddy has tollgate")
	o.wantRefusal("DELETE", "/tollgate/sessions?user=12345", 404, "no site of this Caddy has tollgate")
}

func TestAnOperatorEndsTheStreamsOfASession(t *testing.T) {
	o := operateCaddy(t, storeInStorage)
	b := o.newBrowser().signIn()
	ws, events := b.webSocket(o.url+"/stream/ws"), b.eventStream(o.url+"/stream/events")
	o.wantEnded("/tollgate/sessions?user="+testUserID, `{"ended":1}`)
	wantClosed(t, ws, 4401, "session ended", time.Second)
	events.wantCut(time.Second)
}
