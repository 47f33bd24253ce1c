package simulator_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

func (w *world) createApp(token, body string) reply {
	w.t.Helper()
	header := bearer(token)
	header.Set("Content-Type", "application/json")
	return w.browser().send("POST", simulator.AppsPath, header, body)
}

func appBody(redirectURI string) string {
	body, _ := json.Marshal(map[string]string{
		"name": "My App", "description": "about it", "redirect_uri": redirectURI,
	})
	return string(body)
}

func TestCreatedAppCanLogIn(t *testing.T) {
	c := newClock()
	options := autoLogin()
	options.Now = c.Now
	w := start(t, options)
	const target = "https://new.example/callback"
	answer := w.createApp(simulator.DefaultDeveloperToken, appBody(target))
	w.wantStatus(answer, http.StatusOK)

	var created struct {
		Success bool
		Message string
		Data    struct {
			ID           int64
			Name         string
			ClientID     string `json:"client_id"`
			ClientSecret string `json:"client_secret"`
			RedirectURI  string `json:"redirect_uri"`
			CreatedTime  int64  `json:"created_time"`
		}
	}
	if err := json.Unmarshal([]byte(answer.body), &created); err != nil {
		t.Fatal(err)
	}
	data := created.Data
	if !created.Success || created.Message != "Application created successfully" || data.ID != 1 ||
		data.Name != "My App" || data.RedirectURI != target || data.CreatedTime != c.Now().Unix() {
		t.Errorf("answer %s", answer.body)
	}
	if !strings.HasPrefix(data.ClientID, "client_") || !strings.HasPrefix(data.ClientSecret, "secret_") {
		t.Errorf("answer %s", answer.body)
	}

	code := w.code("client_id", data.ClientID, "redirect_uri", target)
	w.wantStatus(w.exchange(code, "client_id", data.ClientID, "client_secret", data.ClientSecret, "redirect_uri", target), http.StatusOK)
}

// A refusal has status 200, as in the provider's product family.
func TestRefusedAppIsA200WithoutSuccess(t *testing.T) {
	w := start(t, simulator.Options{})
	good := simulator.DefaultDeveloperToken
	for name, test := range map[string]struct{ token, body, message string }{
		"bad token":         {"wrong", appBody("https://a.example/cb"), "developer token"},
		"not JSON":          {good, "name=x", "JSON"},
		"two values":        {good, appBody("https://a.example/cb") + "{}", "JSON"},
		"wrong type":        {good, `{"name":5}`, "JSON"},
		"no name":           {good, `{"name":" ","redirect_uri":"https://a.example/cb"}`, "name"},
		"no redirect_uri":   {good, appBody(""), "redirect_uri is missing"},
		"http":              {good, appBody("http://a.example/cb"), "https"},
		"http, tricky host": {good, appBody("http://127.0.0.1.evil.example/cb"), "https"},
		"relative":          {good, appBody("/callback"), "absolute"},
		"other scheme":      {good, appBody("javascript:alert(1)"), "absolute"},
		"fragment":          {good, appBody("https://a.example/cb#x"), "fragment"},
		"empty fragment":    {good, appBody("https://a.example/cb#"), "fragment"},
		"credentials":       {good, appBody("https://user@a.example/cb"), "credentials"},
	} {
		answer := w.createApp(test.token, test.body)
		object := answer.json(t)
		message, _ := object["message"].(string)
		if answer.StatusCode != http.StatusOK || object["success"] != false || object["data"] != nil {
			t.Errorf("%s: %s %s", name, answer.Status, answer.body)
		}
		if !strings.Contains(message, test.message) {
			t.Errorf("%s: message %q lacks %q", name, message, test.message)
		}
	}
	missing := w.browser().send("POST", simulator.AppsPath, nil, appBody("https://a.example/cb"))
	if missing.json(t)["success"] != false {
		t.Error("an app was created without a token")
	}
}

func TestAppsOnLoopbackMayUseHTTP(t *testing.T) {
	w := start(t, simulator.Options{DeveloperToken: "mine"})
	for _, target := range []string{
		"http://localhost:8080/cb", "http://127.0.0.1/cb", "http://127.9.9.9:1/cb", "http://[::1]:3000/cb", "http://app.localhost/cb",
	} {
		if w.createApp("mine", appBody(target)).json(t)["success"] != true {
			t.Errorf("%s was refused", target)
		}
	}
	if w.createApp(simulator.DefaultDeveloperToken, appBody("https://a.example/cb")).json(t)["success"] != false {
		t.Error("the default token works although another is set")
	}
}

func TestSetClientReplacesAClient(t *testing.T) {
	w := start(t, autoLogin())
	w.SetClient(simulator.Client{ID: clientID, Secret: "new", RedirectURIs: []string{"http://127.0.0.1:1/cb"}})
	w.wantStatus(w.browser().get(authorizePath()), http.StatusBadRequest)
	code := w.code("redirect_uri", "http://127.0.0.1:1/cb")
	w.wantStatus(w.exchange(code, "client_secret", "new", "redirect_uri", "http://127.0.0.1:1/cb"), http.StatusOK)
}

func TestZeroOptionsAreTheDocumentedDefaults(t *testing.T) {
	c := newClock()
	w := start(t, simulator.Options{AutoLogin: "user123", Now: c.Now})
	code := w.code()
	c.advance(time.Minute - time.Nanosecond)
	w.wantStatus(w.exchange(code), http.StatusOK)
	if len(w.Users()) != 3 {
		t.Errorf("%d users", len(w.Users()))
	}
}
