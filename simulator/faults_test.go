package simulator_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

// clientTimeout is how long a client waits for a response that does not come.
const clientTimeout = 300 * time.Millisecond

func (w *world) tryRefresh(token string) (reply, error) {
	w.t.Helper()
	return w.browser().try("POST", simulator.TokenPath, formHeader(), refreshForm(token).Encode())
}

// abandonRefresh is tryRefresh with a client that leaves. It first waits until its request has
// arrived, which takes long on a busy machine.
func (w *world) abandonRefresh(token string) (reply, error) {
	w.t.Helper()
	before := w.Count(simulator.Refresh)
	ctx, leave := context.WithCancel(w.t.Context())
	defer leave()
	go func() { // ends with ctx
		for w.Count(simulator.Refresh) == before && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(clientTimeout)
		leave()
	}()
	return w.browser().tryUntil(ctx, "POST", simulator.TokenPath, formHeader(), refreshForm(token).Encode())
}

// eventually waits for work that the server does after its client has left.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func TestStatusFaultReplacesTheAnswerAndSpendsNothing(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	w.SetFault(simulator.Token, simulator.Fault{Status: 503, Header: http.Header{"Retry-After": {"7"}}})

	answer := w.refresh(pair.refresh)
	w.wantStatus(answer, http.StatusServiceUnavailable)
	if answer.body != "503 Service Unavailable\n" || answer.Header.Get("Retry-After") != "7" ||
		!strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("answer %q, header %v", answer.body, answer.Header)
	}
	w.wantStatus(w.exchange("x"), http.StatusServiceUnavailable)
	if w.Count(simulator.Refresh) != 1 {
		t.Error("a request answered by a fault is not counted")
	}

	w.ClearFaults()
	w.wantStatus(w.refresh(pair.refresh), http.StatusOK)
}

func TestBodyFaultIsLabelledByItsFirstByte(t *testing.T) {
	w := start(t, autoLogin())
	for body, want := range map[string]string{
		`{"success":false,"message":"x"}`: "application/json; charset=utf-8",
		" [1]":                            "application/json; charset=utf-8",
		"<html>Cloudflare":                "text/html; charset=utf-8",
		"upstream error":                  "text/plain; charset=utf-8",
	} {
		w.SetFault(simulator.UserInfo, simulator.Fault{Body: body})
		answer := w.userInfo("x")
		w.wantStatus(answer, http.StatusOK)
		if answer.body != body || answer.Header.Get("Content-Type") != want {
			t.Errorf("%q came as %q, %s", body, answer.body, answer.Header.Get("Content-Type"))
		}
	}
	w.SetFault(simulator.UserInfo, simulator.Fault{Status: 418, Body: "{}", ContentType: "image/png"})
	answer := w.userInfo("x")
	w.wantStatus(answer, http.StatusTeapot)
	if answer.Header.Get("Content-Type") != "image/png" {
		t.Errorf("content type %q", answer.Header.Get("Content-Type"))
	}
}

func TestStatusWithoutABodySendsNone(t *testing.T) {
	w := start(t, autoLogin())
	for _, status := range []int{http.StatusNoContent, http.StatusNotModified} {
		w.SetFault(simulator.UserInfo, simulator.Fault{Status: status})
		answer := w.userInfo("x")
		w.wantStatus(answer, status)
		if answer.body != "" {
			t.Errorf("%d has body %q", status, answer.body)
		}
	}
}

func TestHeaderAndContentTypeAloneKeepTheRealAnswer(t *testing.T) {
	w := start(t, autoLogin())
	access := w.login().access
	w.SetFault(simulator.UserInfo, simulator.Fault{
		ContentType: "text/html", Header: http.Header{"cross-origin-opener-policy": {"same-origin"}},
	})
	answer := w.userInfo(access)
	if answer.json(t)["id"] != float64(userID) || answer.Header.Get("Content-Type") != "text/html" ||
		answer.Header.Get("Cross-Origin-Opener-Policy") != "same-origin" || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", answer.body, answer.Header)
	}
}

func TestFaultBelongsToItsEndpointAlone(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	for _, endpoint := range simulator.Endpoints() {
		w.ClearFaults()
		w.SetFault(endpoint, simulator.Fault{Status: 599})
		hit := map[simulator.Endpoint]bool{
			simulator.Authorize: w.browser().get(authorizePath()).StatusCode == 599,
			simulator.Exchange:  w.exchange("x").StatusCode == 599,
			simulator.Refresh:   w.refresh("x").StatusCode == 599,
			simulator.UserInfo:  w.userInfo(pair.access).StatusCode == 599,
			simulator.TopUp:     w.browser().send("GET", simulator.TopUpPath, nil, "").StatusCode == 599,
			simulator.Apps:      w.createApp("x", "").StatusCode == 599,
			simulator.Revoke:    w.post(simulator.RevokePath, nil).StatusCode == 599,
		}
		for other, was := range hit {
			isGrant := other == simulator.Exchange || other == simulator.Refresh
			if want := other == endpoint || (endpoint == simulator.Token && isGrant); was != want {
				t.Errorf("a fault of %s hits %s: %v", endpoint, other, was)
			}
		}
	}
}

func TestFaultOfAGrantPrecedesOneOfTheTokenEndpoint(t *testing.T) {
	w := start(t, autoLogin())
	w.SetFault(simulator.Token, simulator.Fault{Status: 500})
	w.SetFault(simulator.Refresh, simulator.Fault{Status: 502, Times: 1})
	w.wantStatus(w.exchange("x"), 500)
	w.wantStatus(w.refresh("x"), 502)
	w.wantStatus(w.refresh("x"), 500)
}

func TestFaultEndsAfterItsTimes(t *testing.T) {
	w := start(t, autoLogin())
	access := w.login().access
	w.SetFault(simulator.UserInfo, simulator.Fault{Status: 500, Times: 3})
	for i, want := range []int{500, 500, 500, 200, 200} {
		if got := w.userInfo(access).StatusCode; got != want {
			t.Errorf("request %d: %d, want %d", i+1, got, want)
		}
	}
}

func TestFaultHitsWithItsProbability(t *testing.T) {
	options := autoLogin()
	options.Rand = rand.New(rand.NewPCG(1, 2))
	w := start(t, options)
	access := w.login().access
	w.SetFault(simulator.UserInfo, simulator.Fault{Status: 500, Probability: 0.3})
	hit := 0
	for range 200 {
		if w.userInfo(access).StatusCode == 500 {
			hit++
		}
	}
	if hit < 40 || hit > 80 {
		t.Errorf("hit %d of 200", hit)
	}
	w.SetFault(simulator.UserInfo, simulator.Fault{Status: 500, Probability: 1})
	w.wantStatus(w.userInfo(access), 500)
}

func TestAfterWorkRotatesAndThenFails(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"status": {Status: 502, AfterWork: true},
		"cut":    {Cut: simulator.CutBeforeAnswer, AfterWork: true},
		"hang":   {Hang: true, AfterWork: true},
	} {
		w := start(t, autoLogin())
		pair := w.login()
		w.SetFault(simulator.Refresh, fault)
		try := w.tryRefresh
		if fault.Hang {
			try = w.abandonRefresh
		}
		if answer, err := try(pair.refresh); err == nil && answer.StatusCode != 502 {
			t.Errorf("%s: %s", name, answer.Status)
		}
		w.ClearFaults()
		w.wantError(w.refresh(pair.refresh), http.StatusBadRequest, "invalid_grant")
		if w.DoubleSpends() != 1 {
			t.Errorf("%s: the refresh token was not spent", name)
		}
	}
}

func TestFaultsWithoutAfterWorkSpendNothing(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"cut":     {Cut: simulator.CutBeforeAnswer},
		"hang":    {Hang: true},
		"endless": {Endless: true},
		"body":    {Body: "oops"},
	} {
		w := start(t, autoLogin())
		pair := w.login()
		w.SetFault(simulator.Refresh, fault)
		try := w.tryRefresh
		if fault.Hang || fault.Endless {
			try = w.abandonRefresh
		}
		answer, err := try(pair.refresh)
		if (err == nil) != (name == "body") {
			t.Errorf("%s: %v %v", name, answer.Response, err)
		}
		w.ClearFaults()
		w.wantStatus(w.refresh(pair.refresh), http.StatusOK)
	}
}

func TestCutBeforeAnswerGivesTheClientNoByte(t *testing.T) {
	w := start(t, autoLogin())
	w.SetFault(simulator.Token, simulator.Fault{Cut: simulator.CutBeforeAnswer})
	_, err := w.browser().try("POST", simulator.TokenPath, formHeader(), "")
	if !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want EOF", err)
	}
}

func TestCutHalfRotatesAndSendsHalfOfTheAnswer(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	w.SetFault(simulator.Refresh, simulator.Fault{Cut: simulator.CutHalf})
	answer, err := w.tryRefresh(pair.refresh)
	if !errors.Is(err, io.ErrUnexpectedEOF) || answer.StatusCode != http.StatusOK {
		t.Fatalf("error %v, want unexpected EOF", err)
	}
	if !strings.HasPrefix(answer.body, `{"access_token":"`) || int64(len(answer.body)) != answer.ContentLength/2 {
		t.Errorf("%d of %d bytes: %.30s", len(answer.body), answer.ContentLength, answer.body)
	}
	w.ClearFaults()
	w.wantError(w.refresh(pair.refresh), http.StatusBadRequest, "invalid_grant")
}

func TestCutHalfOfAFalseBody(t *testing.T) {
	w := start(t, autoLogin())
	w.SetFault(simulator.UserInfo, simulator.Fault{Status: 500, Body: "0123456789", Cut: simulator.CutHalf})
	answer, err := w.browser().try("GET", simulator.UserInfoPath, nil, "")
	if !errors.Is(err, io.ErrUnexpectedEOF) || answer.body != "01234" || answer.StatusCode != 500 {
		t.Errorf("%v %q", err, answer.body)
	}
}

func TestHangEndsWhenTheClientLeaves(t *testing.T) {
	w := start(t, autoLogin())
	w.SetFault(simulator.UserInfo, simulator.Fault{Hang: true})
	b := w.browser()
	b.Timeout = clientTimeout
	begin := time.Now()
	if _, err := b.try("GET", simulator.UserInfoPath, nil, ""); err == nil || time.Since(begin) < clientTimeout {
		t.Errorf("error %v after %v", err, time.Since(begin))
	}
	// The server's Close waits for open requests. The test passes if it returns.
}

func TestEndlessBodyGoesOnUntilTheClientLeaves(t *testing.T) {
	returned := make(chan struct{})
	p := simulator.New(simulator.Options{})
	p.SetFault(simulator.UserInfo, simulator.Fault{Endless: true})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(returned)
		p.ServeHTTP(w, r)
	}))
	defer server.Close()

	response, err := http.Get(server.URL + simulator.UserInfoPath)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyN(io.Discard, response.Body, 8<<20)
	if err != nil || n != 8<<20 || response.StatusCode != http.StatusOK || response.ContentLength != -1 {
		t.Errorf("%d bytes of %d: %v", n, response.ContentLength, err)
	}
	response.Body.Close()
	select {
	case <-returned:
	case <-time.After(30 * time.Second):
		t.Error("the server goes on writing to nobody")
	}
}

func TestEndlessBodyBeginsWithTheGivenBody(t *testing.T) {
	w := start(t, autoLogin())
	for body, want := range map[string]string{"": `{"message":"aaaa`, "<html>": "<html>aaaa"} {
		w.SetFault(simulator.Token, simulator.Fault{Endless: true, Body: body, Status: 502})
		response, err := http.Post(w.url+simulator.TokenPath, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := make([]byte, len(want))
		if _, err := io.ReadFull(response.Body, begin); err != nil || string(begin) != want || response.StatusCode != 502 {
			t.Errorf("%s %q: %v", response.Status, begin, err)
		}
		response.Body.Close()
	}
}

func TestDelayMakesTheRealAnswerLate(t *testing.T) {
	w := start(t, autoLogin())
	access := w.login().access
	for _, fault := range []simulator.Fault{
		{Delay: 100 * time.Millisecond},
		{Delay: 100 * time.Millisecond, DelayAfterWork: true},
	} {
		w.SetFault(simulator.UserInfo, fault)
		begin := time.Now()
		w.wantStatus(w.userInfo(access), http.StatusOK)
		if took := time.Since(begin); took < fault.Delay {
			t.Errorf("the answer came after %v", took)
		}
	}
}

func TestDelayAfterWorkSendsTheResponseOfTheEarlierWork(t *testing.T) {
	for after, want := range map[bool]string{true: "750.00", false: "740.00"} {
		w := start(t, autoLogin())
		access := w.login().access
		release := make(chan struct{})
		w.SetFault(simulator.UserInfo, simulator.Fault{Until: release, DelayAfterWork: after})
		balance := make(chan any, 1)
		go func() { balance <- w.userInfo(access).json(t)["balance_formatted"] }()
		eventually(t, "the request arrives", func() bool { return w.Count(simulator.UserInfo) == 1 })
		time.Sleep(clientTimeout) // the work of a request that works first
		if err := w.Spend(userID, 10_00); err != nil {
			t.Fatal(err)
		}
		close(release)
		if got := <-balance; got != want {
			t.Errorf("after work %v: balance %v, want %v", after, got, want)
		}
	}
}

func TestWorkIsDoneIfTheClientLeavesDuringTheDelay(t *testing.T) {
	for _, after := range []bool{false, true} {
		w := start(t, autoLogin())
		pair := w.login()
		w.SetFault(simulator.Refresh, simulator.Fault{Delay: time.Hour, DelayAfterWork: after})
		if _, err := w.abandonRefresh(pair.refresh); err == nil {
			t.Error("an answer came")
		}
		w.ClearFaults()
		// The wait of an hour ended because the client left. The server has
		// rotated our token, so that using it again revokes the family.
		eventually(t, "the rotation", func() bool {
			probe := w.refresh(pair.refresh)
			if probe.StatusCode == http.StatusOK {
				pair = w.pair(probe) // we were faster than the server
				return false
			}
			return w.DoubleSpends() > 0
		})
	}
}

func TestDelayedFailureIsLateToo(t *testing.T) {
	w := start(t, autoLogin())
	w.SetFault(simulator.UserInfo, simulator.Fault{Delay: 100 * time.Millisecond, Status: 504})
	begin := time.Now()
	w.wantStatus(w.userInfo("x"), http.StatusGatewayTimeout)
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("the answer came after %v", took)
	}
}

func TestFaultsCanBeSetWhileRequestsRun(t *testing.T) {
	w := start(t, autoLogin())
	access := w.login().access
	ctx, stop := context.WithTimeout(t.Context(), clientTimeout)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			w.SetFault(simulator.UserInfo, simulator.Fault{Status: 500, Times: 2})
			w.SetFault(simulator.Token, simulator.Fault{Probability: 0.5, Body: "x"})
			w.Counts()
			w.Requests(simulator.UserInfo)
			w.ClearFaults()
		}
	}()
	for ctx.Err() == nil {
		if status := w.userInfo(access).StatusCode; status != 200 && status != 500 {
			t.Errorf("status %d", status)
		}
		w.refresh("x")
	}
	<-done
}
