package doctor

import (
	"net/http"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/neighbours"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Patient is a handler that can be examined: the one of tollgate.
type Patient interface {
	// Examine returns the handler's resolved settings. It changes nothing.
	Examine() *Site
}

// Site is one tollgate of the configuration, with its resolved settings.
type Site struct {
	// Place is where in the configuration the site is. It also has the site's origin, its
	// redirect_uri and its cookies.
	*neighbours.Site
	// Client asks the provider.
	Client *oauth.Client
	// Endpoints are the paths of the gateway's own endpoints, by name.
	Endpoints map[string]string
	// Secrets are the secrets for the cookies, and SecretTexts are their texts in the
	// configuration, before placeholders are replaced. Both are empty if tollgate makes a
	// secret.
	Secrets     [][]byte
	SecretTexts []string
	// ClientSecretText is the client secret in the configuration, before placeholders are
	// replaced.
	ClientSecretText string
	// StoreName is the name of the session store, such as "cookie".
	StoreName string
	Store     session.Store
	// Storage is Caddy's storage.
	Storage certmagic.Storage
	// Lifetime is how long a session lives.
	Lifetime time.Duration
	// TrustedProxies are those of forward_auth.
	TrustedProxies policy.TrustedProxies
	// SetIdentity sets the name of every identity header, with an empty value.
	SetIdentity func(http.Header)

	// server is the site's server in the JSON configuration.
	server *server
	// others are the other sites of the configuration.
	others []*Site
}

// server is what the checks need of a server's JSON.
type server struct {
	name           string
	HasTLS         bool     `json:"-"`
	TrustedProxies []string `json:"-"`
}
