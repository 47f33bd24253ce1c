package simulator

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// appRequest is the request body of a developer who registers an application.
type appRequest struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	RedirectURI string `json:"redirect_uri"`
}

// app is the registered application in the response. No other response shows
// the client secret.
type app struct {
	ID           int64  `json:"id"`
	Name         string `json:"name"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RedirectURI  string `json:"redirect_uri"`
	CreatedTime  int64  `json:"created_time"`
}

// envelope wraps every response of the provider's own API. The status is 200
// also for a refusal. The simulator does the same, because clients often
// overlook that.
type envelope struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
	Data    *app   `json:"data,omitempty"`
}

// createApp registers a client. The client stays registered while the
// Provider exists, or until maxClients others were registered after it.
func (p *Provider) createApp(w http.ResponseWriter, r *http.Request) {
	token, ok := bearerToken(r)
	if !ok || !sameSecret(token, p.options.DeveloperToken) {
		refuseApp(w, "invalid developer token")
		return
	}
	request, problem := readApp(r)
	if problem != "" {
		refuseApp(w, problem)
		return
	}
	created := app{
		ID:           p.lastAppID.Add(1),
		Name:         request.Name,
		ClientID:     "client_" + randomHex(32),
		ClientSecret: "secret_" + randomHex(48),
		RedirectURI:  request.RedirectURI,
		CreatedTime:  p.options.Now().Unix(),
	}
	p.SetClient(Client{
		ID:           created.ClientID,
		Secret:       created.ClientSecret,
		Name:         created.Name,
		RedirectURIs: []string{created.RedirectURI},
	})
	writeJSON(w, http.StatusOK, envelope{true, "Application created successfully", &created})
}

func refuseApp(w http.ResponseWriter, message string) {
	writeJSON(w, http.StatusOK, envelope{Success: false, Message: message})
}

func readApp(r *http.Request) (request appRequest, problem string) {
	body, err := readBody(r)
	if err != nil || json.Unmarshal(body, &request) != nil {
		return request, "the body is not a JSON object with name, description and redirect_uri"
	}
	if strings.TrimSpace(request.Name) == "" {
		return request, "name is missing"
	}
	return request, checkRedirectURI(request.RedirectURI)
}

// checkRedirectURI requires https, except on the developer's own machine. It
// refuses a fragment (RFC 6749 section 3.1.2).
func checkRedirectURI(redirectURI string) (problem string) {
	u, err := url.Parse(redirectURI)
	switch {
	case redirectURI == "":
		return "redirect_uri is missing"
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return "redirect_uri must be an absolute https URL"
	case strings.Contains(redirectURI, "#"):
		return "redirect_uri must not have a fragment"
	case u.User != nil:
		return "redirect_uri must not contain credentials"
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "redirect_uri must use https, except on localhost"
	}
	return ""
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
