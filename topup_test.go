package tollgate_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// TestTopupWithoutAURLHasItsOwnError: nothing is wrong with the sign-in, and another one
// would not help.
func TestTopupWithoutAURLHasItsOwnError(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	for name, fault := range map[string]simulator.Fault{
		"no URL":      {Body: `{"success":true}`},
		"a script":    {Body: `{"topup_url":"javascript:alert(1)"}`},
		"plain http":  {Body: `{"topup_url":"http://pay.example/x"}`},
		"an odd host": {Body: `{"topup_url":"https://127.1/x"}`},
		"HTML":        {Body: "<html>"},
		"403":         {Status: 403},
		"404":         {Status: 404},
		"success":     {Body: `{"success":false}`},
	} {
		s.Provider.SetFault(simulator.TopUp, fault)
		a := b.Get("/oauth/topup", "Accept: application/json")
		if a.StatusCode != http.StatusBadGateway || a.JSON(t)["error"] != "topup_failed" {
			t.Errorf("%s: a script got %d: %s", name, a.StatusCode, a.Text)
		}
		code := "invalid_response"
		if name == "403" || name == "success" {
			code = "userinfo_denied"
		}
		page := b.Visit("/oauth/topup", "Accept-Language: en")
		for _, want := range []string{"Topping up is not possible right now", "Error code: " + code, `href="/"`} {
			if page.StatusCode != http.StatusBadGateway || !strings.Contains(page.Text, want) {
				t.Errorf("%s: a person got %d, a page without %q", name, page.StatusCode, want)
			}
		}
		if strings.Contains(page.Text, "/oauth/start") || strings.Contains(page.Text, "sign-in") {
			t.Errorf("%s: the page speaks of a sign-in: %s", name, page.Text)
		}
	}
	s.Provider.SetFault(simulator.TopUp, simulator.Fault{Status: 503})
	if a := b.Get("/oauth/topup", "Accept: application/json"); a.StatusCode != http.StatusServiceUnavailable || a.JSON(t)["error"] != "unavailable" {
		t.Errorf("an outage: got %d: %s", a.StatusCode, a.Text)
	}
}

func TestTopupRedirectsOnlyToConfiguredHosts(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "topup_hosts pay.example.com Bücher.example:8443\ntopup_hosts 127.0.0.1:7"})
	b := s.NewBrowser().SignIn()
	for address, ok := range map[string]bool{
		"https://pay.example.com/x":                 true,
		"https://PAY.example.com:443/x?y#z":         true,
		"https://bücher.example:8443/":              true,
		"https://xn--bcher-kva.example:8443/":       true,
		"http://127.0.0.1:7/":                       true,
		"https://pay.example.com:444/":              false,
		"http://pay.example.com/":                   false,
		"https://bücher.example/":                   false,
		"https://a.pay.example.com/":                false,
		"https://pay.example.com.evil.example/":     false,
		"https://pay.example.com@evil.example/":     false,
		"https://pay.example.com\\\\@evil.example/": false,
		"https://evil.example/pay.example.com":      false,
		"https://pay.example.com./":                 false,
		"http://127.0.0.1:8/":                       false,
		"http://localhost:7/":                       false,
	} {
		s.Provider.SetFault(simulator.TopUp, simulator.Fault{Body: `{"topup_url":"` + address + `"}`})
		a := b.Visit("/oauth/topup")
		if ok != (a.StatusCode == http.StatusSeeOther) || ok == (a.StatusCode == http.StatusBadGateway) {
			t.Errorf("%s: got %d to %q", address, a.StatusCode, a.Location())
		}
	}
}
