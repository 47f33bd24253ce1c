package cause

import "net/http"

// Level is how urgent a cause is for the operator.
type Level string

const (
	// Info is for what users and their browsers cause. Nobody needs to act.
	Info Level = "info"
	// Warn is for what may pass by itself, such as an outage of the provider.
	Warn Level = "warn"
	// Error is for what stays until the operator acts.
	Error Level = "error"
)

// Row is one cause.
type Row struct {
	Code string
	// Status is the HTTP status of the page. An error that arrives in the callback's URL always
	// has 400: anyone can write one there, so it must not look like an outage.
	Status int
	Level  Level
	// Words is the key of the page's texts in the language files, cause.<Words>.title and so on.
	Words string
	// Hint tells the operator what to look at and what to do.
	Hint string
}

// rows are all causes: first those of the callback's URL, then those of the requests to the
// provider, then those of this site.
var rows = []Row{
	{
		AccessDenied, http.StatusBadRequest, Info, "denied",
		"the user or the provider declined the sign-in; nothing to do, unless every user is declined: then look at the app's settings at the provider",
	},
	{
		MissingParameters, http.StatusBadRequest, Info, "incomplete",
		"somebody opened the callback URL without `code` and `state`; if every sign-in ends like this, look for a proxy that removes the query",
	},
	{
		InvalidState, http.StatusBadRequest, Info, "state",
		"the browser did not send the login's cookie; if many sign-ins end like this, check that the users' address has the host and the scheme of redirect_uri, and that all gateways of the site have the same `secret`",
	},
	{
		Expired, http.StatusBadRequest, Info, "expired",
		"the sign-in took too long, or it gave way to newer sign-ins in other tabs; nothing to do",
	},
	{
		OtherOrigin, http.StatusBadRequest, Warn, "origin",
		"the sign-in began under another host than redirect_uri's, so its cookie is missing here; let users open the site under redirect_uri's host, or let the proxy in front keep the Host header",
	},
	{
		LoginLoop, http.StatusBadRequest, Warn, "loop",
		"the browser does not keep the session cookie; check that the users' address has the host and the scheme of redirect_uri, and check cookie_domain, same_site and partitioned",
	},

	{
		InvalidClient, http.StatusBadGateway, Error, "setup",
		"the provider refuses this client: check client_id, client_secret and client_authentication against the app at the provider",
	},
	{
		UnauthorizedClient, http.StatusBadGateway, Error, "setup",
		"the provider does not allow this app to use the authorization code or refresh token grant: check the app's settings at the provider",
	},
	{
		InvalidRequest, http.StatusBadGateway, Error, "setup",
		"the provider calls the request malformed: check redirect_uri and authorize_param, and whether the provider supports `pkce`",
	},
	{
		InvalidScope, http.StatusBadGateway, Error, "setup",
		"the provider refuses the scopes: set `scopes` to scopes that the app has at the provider",
	},
	{
		UnsupportedResponseType, http.StatusBadGateway, Error, "setup",
		"the provider does not support the authorization code flow for this app: check the app's settings and authorization_endpoint",
	},
	{
		UnsupportedGrantType, http.StatusBadGateway, Error, "setup",
		"the provider's token endpoint does not support the grant: check token_endpoint and the app's settings at the provider",
	},
	{
		InvalidGrant, http.StatusBadRequest, Warn, "grant",
		"the provider does not accept the code or the refresh token; the user signs in again. If every sign-in ends like this, check that redirect_uri is the one of the app, and the clock of this machine",
	},
	{
		RateLimited, http.StatusServiceUnavailable, Warn, "limited",
		"the provider limits the requests of this client; wait, and ask the provider for a higher limit if this goes on",
	},
	{
		TemporarilyUnavailable, http.StatusServiceUnavailable, Warn, "busy",
		"the provider is out of order, overloaded or under maintenance (status 5xx); wait, and look at the provider's status page",
	},
	{
		Timeout, http.StatusServiceUnavailable, Warn, "timeout",
		"no response within `timeout`; look at the provider's status page and at the network between this machine and the provider, or set a longer `timeout`",
	},
	{
		Unreachable, http.StatusServiceUnavailable, Warn, "unreachable",
		"no connection to the provider; check the endpoint's URL, DNS, the firewall and the TLS certificate from this machine",
	},
	{
		InvalidResponse, http.StatusBadGateway, Error, "response",
		"the response is not what OAuth specifies, or names another issuer; check the endpoint's URL, `fields` and `issuer`, and whether a proxy or a maintenance page answers instead of the provider",
	},
	{
		UserinfoDenied, http.StatusBadGateway, Warn, "userinfo",
		"the provider refuses the user's access token at this endpoint; check that `scopes` includes what the endpoint needs, and the endpoint's URL",
	},
	{
		ServerError, http.StatusBadGateway, Warn, "failed",
		"an error without a more exact cause; this line's `error`, if it has one, says more. If it is the provider's, look at the provider's status page",
	},

	{
		InactiveUser, http.StatusForbidden, Info, "inactive",
		"the provider says that this user is not active; check the user at the provider, or `active_status` and `fields` if every user is refused",
	},
	{
		SessionTooLarge, http.StatusBadGateway, Error, "large",
		"the tokens do not fit into the session store; with `store cookie`, set `session { store storage }` or `session { store redis { … } }`",
	},
	{
		StoreUnavailable, http.StatusServiceUnavailable, Error, "store",
		"the session store or Caddy's storage does not answer; check that it is running, reachable from this machine and writable",
	},
}
