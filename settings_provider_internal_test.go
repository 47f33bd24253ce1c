package tollgate

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlainProviderHasNoDefaults(t *testing.T) {
	_, handlers, err := provision("{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + plainProvider + "}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	h := handlers[0]
	t.Cleanup(func() { h.Cleanup() })
	got := []string{h.settings.client.TopupEndpoint, h.settings.client.RevocationEndpoint, h.settings.client.BalanceEndpoint, h.settings.client.Issuer, strings.Join(h.settings.client.Config.Scopes, " ")}
	if diff := cmp.Diff([]string{"", "", "", "", ""}, got); diff != "" {
		t.Error(diff)
	}
	first, second := h.settings.client.AuthorizationURL("s", "v", false), h.settings.client.AuthorizationURL("s", "v", true)
	if strings.Contains(first, "scope=") || strings.Contains(first, "auto_authorize") || strings.Contains(first, "prompt") {
		t.Errorf("a sign-in goes to %s", first)
	}
	if !strings.Contains(second, "prompt=login") {
		t.Errorf("a sign-in after a logout goes to %s", second)
	}
}

func TestEndpointsMayBePathsBelowBaseURL(t *testing.T) {
	block := strings.ReplaceAll(plainProvider, "_endpoint https://login.example.com/", "_endpoint /")
	block = strings.Replace(block, "client_id", "base_url https://login.example.com/dex/\ntopup_endpoint /p?x=1\nrevocation_endpoint /r\nclient_id", 1)
	_, handlers, err := provision("{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + block + "}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	c := handlers[0].settings.client
	t.Cleanup(func() { handlers[0].Cleanup() })
	got := []string{c.Config.Endpoint.AuthURL, c.Config.Endpoint.TokenURL, c.UserinfoEndpoint, c.TopupEndpoint, c.RevocationEndpoint}
	const base = "https://login.example.com/dex"
	if diff := cmp.Diff([]string{base + "/a", base + "/t", base + "/u", base + "/p?x=1", base + "/r"}, got); diff != "" {
		t.Error(diff)
	}
}
