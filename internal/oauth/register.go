package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// DefaultBaseURL is AIHubMix, the only real host in its documentation.
const DefaultBaseURL = "https://api.aihubmix.com"

// appsPath is where the provider registers applications.
const appsPath = "/api/oauth_apps"

// registerTimeout is enough for a slow console, and short enough for a waiting person.
const registerTimeout = 30 * time.Second

// App is the application to register.
type App struct {
	Name        string
	Description string
	RedirectURI string
}

// RegisteredApp is the application that the provider registered.
type RegisteredApp struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RedirectURI  string `json:"redirect_uri"`
}

// RegisterApp registers an application. It sends the request once.
func RegisterApp(ctx context.Context, base, token string, o App) (RegisteredApp, error) {
	request, err := json.Marshal(map[string]string{
		"name": o.Name, "description": o.Description, "redirect_uri": o.RedirectURI,
	})
	if err != nil {
		return RegisteredApp{}, fmt.Errorf("registering the application: %w", err)
	}
	var sent atomic.Bool
	req, err := http.NewRequestWithContext(withSentTrace(ctx, &sent), http.MethodPost, base+appsPath, bytes.NewReader(request))
	if err != nil {
		return RegisteredApp{}, fmt.Errorf("registering the application: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	client := NewHTTPClient(registerTimeout)
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return RegisteredApp{}, registrationFault(base, transportReason(err), sent.Load())
	}
	defer res.Body.Close()
	body, err := readResponse(res.Body)
	if err != nil {
		return RegisteredApp{}, registrationFault(base, err.Error(), true)
	}
	return readRegistration(res.StatusCode, body, token)
}

func registrationFault(base, reason string, sent bool) error {
	if sent {
		reason += "; the application may have been registered, so check the provider's console before you try again"
	}
	return fmt.Errorf("registering the application at %s: %s", base, reason)
}

// readRegistration reads the provider's response. The provider may also refuse with a good
// status, and then gives the reason in `message`.
func readRegistration(status int, body []byte, token string) (RegisteredApp, error) {
	var response struct {
		Success bool          `json:"success"`
		Message string        `json:"message"`
		Data    RegisteredApp `json:"data"`
	}
	err := json.Unmarshal(body, &response)
	why := ""
	if message := Printable(response.Message, token); err == nil && message != "" {
		why = ": " + message
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return RegisteredApp{}, fmt.Errorf("the provider does not accept the developer token (status %d)%s", status, why)
	case status >= 300 && status < 400:
		return RegisteredApp{}, fmt.Errorf("the provider sent a redirect (status %d), which is not followed because the developer token would be sent to another address; check --base-url", status)
	case status < 200 || status > 299:
		return RegisteredApp{}, fmt.Errorf("the provider did not register the application (status %d)%s", status, why)
	case err != nil:
		return RegisteredApp{}, errors.New("the provider's response is not the expected JSON; check --base-url")
	case !response.Success:
		return RegisteredApp{}, fmt.Errorf("the provider did not register the application%s", why)
	case response.Data.ClientID == "" || response.Data.ClientSecret == "":
		return RegisteredApp{}, errors.New("the provider's response has no client_id or no client_secret")
	}
	return response.Data, nil
}

// maxMessage is the maximum length of a shown text of the provider, in runes.
const maxMessage = 200

// Printable makes a text of the provider safe for a terminal: one line of limited length,
// without control and formatting characters, and without the developer token if the provider
// repeats it.
func Printable(text, token string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	text = strings.ReplaceAll(text, token, "[developer token]")
	if runes := []rune(text); len(runes) > maxMessage {
		text = string(runes[:maxMessage]) + "…"
	}
	return text
}
