package simulator_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestRequestsAreCountedByEndpoint(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	pair = w.pair(w.refresh(pair.refresh))
	w.refresh("unknown") // refused requests count too
	w.userInfo(pair.access)
	w.userInfo("unknown")
	w.topUpURL(pair.access)
	w.createApp("wrong", "")
	w.post(simulator.TokenPath, nil) // neither grant
	w.browser().get("/")             // pages do not count

	want := simulator.Counts{
		simulator.Authorize: 1, simulator.Token: 4, simulator.Exchange: 1, simulator.Refresh: 2,
		simulator.UserInfo: 2, simulator.TopUp: 1, simulator.Apps: 1,
	}
	for _, endpoint := range simulator.Endpoints() {
		if got := w.Count(endpoint); got != want[endpoint] || w.Counts()[endpoint] != got {
			t.Errorf("%s: %d, want %d", endpoint, got, want[endpoint])
		}
	}
}

func TestRequestsAreRecordedAsTheyArrived(t *testing.T) {
	c := newClock()
	options := autoLogin()
	options.Now = c.Now
	w := start(t, options)
	pair := w.login("scope", "profile")
	w.userInfo(pair.access)
	w.createApp("the token", `{"name":"x"}`)

	authorize := w.Requests(simulator.Authorize)[0]
	if authorize.Method != "GET" || authorize.Query.Get("scope") != "profile" || authorize.Form != nil {
		t.Errorf("authorize: %+v", authorize)
	}
	exchange := w.Requests(simulator.Exchange)[0]
	if exchange.Form.Get("client_secret") != clientSecret || !strings.HasPrefix(exchange.Form.Get("code"), "code_") ||
		len(exchange.Form) != 5 || exchange.Body != "" || !exchange.Time.Equal(c.Now()) {
		t.Errorf("exchange: %+v", exchange)
	}
	if token := w.Requests(simulator.Token); len(token) != 1 || token[0].Path != simulator.TokenPath {
		t.Errorf("token: %+v", token)
	}
	if got := w.Requests(simulator.UserInfo)[0].Header.Get("Authorization"); got != "Bearer "+pair.access {
		t.Errorf("userinfo: %q", got)
	}
	if got := w.Requests(simulator.Apps)[0].Body; got != `{"name":"x"}` {
		t.Errorf("apps: %q", got)
	}
	if got := w.Requests(simulator.Refresh); len(got) != 0 {
		t.Errorf("refresh: %+v", got)
	}
}

func TestRecordedRequestsAreBounded(t *testing.T) {
	p := simulator.New(simulator.Options{})
	for i := range 1100 {
		r, err := http.NewRequest("GET", simulator.UserInfoPath, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if i == 100 {
			r.Header.Set("X-Mark", "the oldest that is kept")
			r.Header.Set("X-Too-Large", strings.Repeat("x", 20<<10))
		}
		p.ServeHTTP(&discard{header: http.Header{}}, r)
	}
	kept := p.Requests(simulator.UserInfo)
	if p.Count(simulator.UserInfo) != 1100 || len(kept) != 1000 {
		t.Errorf("counted %d, kept %d", p.Count(simulator.UserInfo), len(kept))
	}
	if kept[0].Header.Get("X-Mark") == "" || kept[0].Header.Get("X-Too-Large") != "" {
		t.Errorf("the oldest: %v", kept[0].Header)
	}
}

// discard is a ResponseWriter that discards the response.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

func TestResetCountsForgetsEverythingButTheLogins(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	next := w.pair(w.refresh(pair.refresh))
	spent := w.login()
	w.refresh(spent.refresh)
	w.refresh(spent.refresh)

	w.ResetCounts()
	if len(w.Counts()) != 0 || w.DoubleSpends() != 0 || len(w.Requests(simulator.Token)) != 0 {
		t.Errorf("left %v, %d double spends", w.Counts(), w.DoubleSpends())
	}
	w.wantStatus(w.userInfo(next.access), http.StatusOK)
}
