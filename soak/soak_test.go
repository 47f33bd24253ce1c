package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// askedProvider is a provider that somebody signed in with.
func askedProvider(t *testing.T) (p *provider, refresh func(token string) string, first string) {
	t.Helper()
	const callback = "http://127.0.0.1:1/cb"
	p = newProvider(simulator.Options{
		AutoLogin: "user123",
		Clients:   []simulator.Client{{ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, RedirectURIs: []string{callback}}},
	})
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Get(server.URL + simulator.AuthorizePath + "?" + url.Values{
		"client_id": {gatewaytest.ClientID}, "redirect_uri": {callback}, "response_type": {"code"}, "state": {"s"}, "auto_authorize": {"true"},
	}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(form url.Values) string {
		form.Set("client_id", gatewaytest.ClientID)
		form.Set("client_secret", gatewaytest.ClientSecret)
		res, err := client.Post(server.URL+simulator.TokenPath, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
		if err != nil {
			return "" // cut off
		}
		defer res.Body.Close()
		answer := httptest.NewRecorder()
		answer.Code = res.StatusCode
		answer.Body.ReadFrom(res.Body)
		return refreshTokenIn(answer)
	}
	first = ask(url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {callback}})
	if first == "" {
		t.Fatal("nobody signed in")
	}
	return p, func(token string) string {
		return ask(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
	}, first
}

func TestTokenUsedTwiceIsReported(t *testing.T) {
	p, refresh, first := askedProvider(t)
	if second := refresh(first); second == "" || p.account() != (account{good: 1}) {
		t.Fatalf("a good refresh: %q, %+v", second, p.account())
	}
	refresh(first)
	if got := p.account(); got.doubleSpends != 1 || got.resent != 0 {
		t.Errorf("%+v", got)
	}
	s := &site{provider: p}
	if s.verdict() == nil {
		t.Error("the verdict is good")
	}
}

func TestCutResponseIsCountedSeparately(t *testing.T) {
	p, refresh, token := askedProvider(t)
	g := p.lastGrant()
	p.beginFaults()
	refused := 0
	for p.account().cut == 0 {
		next := refresh(token)
		switch {
		case next != "":
			token = next
		case p.account().cut == 0:
			refused++
		}
		if p.account().asked > 2*cutOf {
			t.Fatal("no answer is ever cut off")
		}
	}
	if got := p.account(); !p.wasCut(g) || got.refused != refused {
		t.Errorf("cut: %v, %d refused, %+v", p.wasCut(g), refused, got)
	}
	p.endFaults()
	refresh(token)
	if got := p.account(); got.doubleSpends != 0 || got.resent != 1 {
		t.Errorf("%+v", got)
	}
	s := &site{provider: p}
	s.answers.lost.Add(1)
	s.answers.lostCut.Add(1)
	if err := s.verdict(); err != nil {
		t.Errorf("a session that nobody could keep: %v", err)
	}
	s.answers.lost.Add(1)
	if s.verdict() == nil {
		t.Error("a session that was lost: the verdict is good")
	}
	s.answers.lost.Add(-1)
	s.answers.wrong.Add(1)
	if err := s.verdict(); err == nil {
		t.Error("another user's identity: the verdict is good")
	}
}

func TestOptions(t *testing.T) {
	for args, want := range map[string]string{
		"-store mysql":      "-store",
		"-refreshes 0":      "-refreshes",
		"-replicas 0":       "-replicas",
		"more":              "unexpected",
		"-store storage":    "",
		"-sessions 1000000": "",
	} {
		_, err := parseOptions(strings.Fields(args))
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
