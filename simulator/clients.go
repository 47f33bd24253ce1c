package simulator

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// maxClients is the maximum number of registered clients.
const maxClients = 1000

// Client is a registered OAuth application.
type Client struct {
	// ID is the client_id.
	ID string

	// Secret is the client_secret. If it is empty, the client is a public one,
	// which sends only its id.
	Secret string

	// Name is shown on the consent page.
	Name string

	// RedirectURIs are compared as whole strings, never by prefix or host.
	RedirectURIs []string
}

type clientTable struct {
	mu      sync.RWMutex // guards clients
	clients *table[string, Client]
}

func newClientTable(clients []Client) *clientTable {
	t := &clientTable{clients: newTable[string, Client](maxClients)}
	for _, c := range clients {
		t.set(c)
	}
	return t
}

func (t *clientTable) get(id string) (Client, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.clients.get(id)
}

func (t *clientTable) set(c Client) {
	c.RedirectURIs = slices.Clone(c.RedirectURIs)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clients.put(c.ID, c)
}

// SetClient adds a client or replaces the one with the same id. Tests need it
// if the redirect_uri is known only after their server has started.
func (p *Provider) SetClient(c Client) { p.clients.set(c) }

// authenticate finds the client that sends this request, by
// client_secret_basic or client_secret_post. A request with both is refused
// (RFC 6749 section 2.3).
func (p *Provider) authenticate(r *http.Request, form url.Values) (Client, error) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if r.Header.Get("Authorization") != "" {
		if form.Has("client_secret") {
			return Client{}, invalidRequest("the client authenticates in two ways at once")
		}
		var err error
		if id, secret, err = basicCredentials(r, id); err != nil {
			return Client{}, err
		}
	}
	if id == "" {
		return Client{}, invalidClient("client_id is missing")
	}
	client, known := p.clients.get(id)
	// Compare the secret also for unknown clients, so that timing does not show
	// which clients exist. A public client must not send a secret.
	if !sameSecret(client.Secret, secret) || !known {
		return Client{}, invalidClient("unknown client or wrong client_secret")
	}
	return client, nil
}

// basicCredentials reads the Authorization header. Both parts are encoded as
// form values before base64 (RFC 6749 section 2.3.1). A client that forgets
// this cannot send a secret with a percent sign.
func basicCredentials(r *http.Request, bodyID string) (id, secret string, err error) {
	user, password, ok := r.BasicAuth()
	if !ok {
		return "", "", invalidClient("the Authorization header is not valid Basic authentication")
	}
	id, errID := url.QueryUnescape(user)
	secret, errSecret := url.QueryUnescape(password)
	if errID != nil || errSecret != nil {
		return "", "", invalidClient("the credentials are not form-encoded")
	}
	if bodyID != "" && bodyID != id {
		return "", "", invalidRequest("client_id differs from the Authorization header")
	}
	return id, secret, nil
}

// bearerToken returns the token of the Authorization header. The name of the
// scheme is case-insensitive (RFC 9110 section 11.1).
func bearerToken(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", false
	}
	return token, true
}
