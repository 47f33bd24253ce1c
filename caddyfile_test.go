package tollgate_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// full names every word of the Caddyfile once.
const full = `provider oauth2 {
	base_url https://login.example.com
	client_id id
	client_secret secret
	client_authentication client_secret_basic
	authorization_endpoint https://login.example.com/a
	token_endpoint https://login.example.com/t
	userinfo_endpoint https://login.example.com/u
	topup_endpoint https://login.example.com/p
	revocation_endpoint https://login.example.com/r
	balance_endpoint /b
	issuer https://issuer.example.com
	scopes one two
	auto_authorize off
	pkce off
	authorize_param prompt login
	authorize_param max_age 60
	logout_param prompt select_account
	token_lifetime 1h
	timeout 5s
	fields {
		id data.sub
		balance credits
	}
	active_status any
}
redirect_uri https://app.example.com/back
secret aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
path_prefix /gate
endpoints {
	start /go
	userinfo /me
}
public /public/* /robots.txt
public *.css
topup_hosts pay.example.com pay.example.org:8443
optional /maybe
require /paid/* *.pdf {
	balance 0.50
}
require {
	email_domain Example.com example.org
	user 1 2
	user 3
}
balance {
	max_age 30s
	max_stale 10m
	on_unknown allow
}
pass_access_token X-Token
retry_unauthorized off
identity webauth remote {
	header X-Who {http.auth.user.id}
}
assertion {
	header X-Signed
	audience ledger
	lifetime 2m
}
session {
	store storage {
		from_cookies 30d
	}
	lifetime 7d
	idle_timeout 2h
	same_site strict
	cookie_name app
	cookie_domain example.com
	partitioned on
}
forward_auth {
	trusted_proxies 10.0.0.0/8 192.0.2.7
	trusted_proxies private_ranges 2001:db8::/32
}
refresh_before 1m
stream_recheck 10s
login_page on
after_login /home
after_logout /bye
error_redirect /public/oops
brand "My App"
logo testdata/logo.svg
accent 0a7d55
pages testdata/pages`

const fullJSON = `{
	"provider": {
		"preset": "oauth2", "base_url": "https://login.example.com", "client_id": "id", "client_secret": "secret",
		"client_authentication": "client_secret_basic", "authorization_endpoint": "https://login.example.com/a",
		"token_endpoint": "https://login.example.com/t", "userinfo_endpoint": "https://login.example.com/u",
		"topup_endpoint": "https://login.example.com/p", "revocation_endpoint": "https://login.example.com/r",
		"balance_endpoint": "/b", "issuer": "https://issuer.example.com", "scopes": ["one", "two"], "auto_authorize": false, "pkce": false,
		"authorize_param": {"prompt": "login", "max_age": "60"}, "logout_param": {"prompt": "select_account"}, "token_lifetime": 3600000000000, "timeout": 5000000000,
		"fields": {"id": "data.sub", "balance": "credits"}, "active_status": "any"
	},
	"redirect_uri": "https://app.example.com/back",
	"secret": ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"],
	"path_prefix": "/gate", "endpoints": {"start": "/go", "userinfo": "/me"},
	"public": ["/public/*", "/robots.txt", "*.css"], "topup_hosts": ["pay.example.com", "pay.example.org:8443"], "optional": ["/maybe"],
	"require": [
		{"paths": ["/paid/*", "*.pdf"], "balance": "0.50"},
		{"email_domain": ["Example.com", "example.org"], "user": ["1", "2", "3"]}
	],
	"balance": {"max_age": 30000000000, "max_stale": 600000000000, "on_unknown": "allow"},
	"pass_access_token": "X-Token", "retry_unauthorized": false,
	"identity": {"presets": ["webauth", "remote"], "header": {"X-Who": "{http.auth.user.id}"}},
	"assertion": {"header": "X-Signed", "audience": "ledger", "lifetime": 120000000000},
	"session": {
		"store": {"module": "storage", "from_cookies": 2592000000000000}, "lifetime": 604800000000000, "idle_timeout": 7200000000000, "same_site": "strict",
		"cookie_name": "app", "cookie_domain": "example.com", "partitioned": true
	},
	"forward_auth": {"trusted_proxies": ["10.0.0.0/8", "192.0.2.7", "private_ranges", "2001:db8::/32"]},
	"refresh_before": 60000000000, "stream_recheck": 10000000000, "login_page": true, "after_login": "/home", "after_logout": "/bye",
	"error_redirect": "/public/oops", "brand": "My App", "logo": "testdata/logo.svg", "accent": "0a7d55", "pages": "testdata/pages"
}`

// adaptHandler adapts a site with this block and gives the handler's JSON.
func adaptHandler(block string) (map[string]any, error) {
	config, err := gatewaytest.Adapt("http:// {\n\trespond ok\n\ttollgate {\n" + block + "\n\t}\n}\n")
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct{ Handle []map[string]any }
				}
			}
		}
	}
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, err
	}
	handle := parsed.Apps.HTTP.Servers["srv0"].Routes[0].Handle
	if handle[0]["handler"] != "tollgate" {
		return nil, fmt.Errorf("tollgate does not come first: %v", handle)
	}
	delete(handle[0], "handler")
	return handle[0], nil
}

func TestEveryOptionBecomesItsJSONKey(t *testing.T) {
	got, err := adaptHandler(full)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(fullJSON), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// minimalBlock is the whole minimal configuration, from the second line on.
const minimalBlock = `provider aihubmix {
	client_id id
	client_secret secret
}
redirect_uri https://app.example.com/oauth/callback
`

// fullSpending names the words that forward_auth excludes.
const fullSpending = minimalBlock + `require /paid/* {
	balance 0.50
	reserve 0.10
	budget 1.00 per hour
	budget 5.00 per day
}
require {
	reserve
	balance 2.00
}
balance {
	low 3.00
}`

func TestSpendingOptionsBecomeTheirJSON(t *testing.T) {
	got, err := adaptHandler(fullSpending)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal([]any{got["require"], got["balance"]})
	if err != nil {
		t.Fatal(err)
	}
	const want = `[[{"balance":"0.50","budget":[{"amount":"1.00","per":"hour"},{"amount":"5.00","per":"day"}],"paths":["/paid/*"],"reserve":"0.10"},` +
		`{"balance":"2.00","reserve":"2.00"}],{"low":"3.00"}]`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestSpendingConfigErrorNamesOptionAndLine(t *testing.T) {
	minimal := func(more string) string { return minimalBlock + more }
	stored := func(more string) string { return minimalBlock + "session {\nstore storage\n}\n" + more }
	for block, want := range map[string]string{
		minimal("require {\nreserve\n}"):                                                      "require[0].reserve: needs an amount, or a balance in the same block",
		minimal("require {\nreserve 0\n}"):                                                    "require[0].reserve: must be more than 0, at Caddyfile:10",
		minimal("require {\nreserve -1\n}"):                                                   "require[0].reserve: \"-1\" is not a plain amount such as 0.50; it must not be negative, at Caddyfile:10",
		minimal("require {\nreserve 1000000000000\n}"):                                        "require[0].reserve: must be at most 100000000000, at Caddyfile:10",
		minimal("require {\nreserve 1\nreserve 2\n}"):                                         "reserve is set twice, at Caddyfile:11",
		minimal("require {\nbudget 1 hour\n}"):                                                "require[0].budget: wrong number of arguments, at Caddyfile:10",
		minimal("require {\nbudget 1 each hour\n}"):                                           "require[0].budget: 'each' should be 'per', as in `budget 5.00 per day`, at Caddyfile:10",
		minimal("require {\nbudget 1 per week\n}"):                                            "require[0].budget[0].per: \"week\" is not one of hour, day, month, at Caddyfile:10",
		minimal("require {\nbudget 1 per day\nbudget 2 per day\n}"):                           "require[0].budget[1]: there is a budget per day already, at Caddyfile:11",
		minimal("require /a /b {\nbudget 1 per day\n}\nrequire /b /a {\nbudget 2 per day\n}"): "require[1].budget: require[0] has a budget per day for the same paths: keep one of them, at Caddyfile:13",
		stored("forward_auth\nrequire {\nbalance 1\nreserve\n}"):                              "require[0].reserve: cannot be used with forward_auth: the endpoint auth does not see when a response ends",
		stored("forward_auth\nrequire {\nbudget 1 per day\n}"):                                "require[0].budget: cannot be used with forward_auth: the endpoint auth does not see when a response ends",
		minimal("balance {\nlow much\n}"):                                                     "balance.low: \"much\" is not a plain amount",
	} {
		if _, err := adaptHandler(block); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
	}
}

func TestConfigErrorNamesOptionAndLine(t *testing.T) {
	minimal := func(more string) string { return minimalBlock + more }
	stored := func(more string) string { return minimalBlock + "session {\nstore storage\n}\n" + more }
	replaced := func(old, replacement string) string { return strings.Replace(minimalBlock, old, replacement, 1) }
	for block, want := range map[string]string{
		minimal("nope x"):                                                                   "unknown word 'nope', at Caddyfile:9",
		minimal("redirekt_uri x"):                                                           "unknown word 'redirekt_uri'; did you mean 'redirect_uri'?, at Caddyfile:9",
		minimal("require /x"):                                                               "require[0]: has no rule: set balance, reserve, budget, email_domain or user, at Caddyfile:9",
		minimal("require {\nuser 1\n}\nrequire {\n}"):                                       "require[1]: has no rule: set balance, reserve, budget, email_domain or user, at Caddyfile:12",
		minimal("require {\nbalance -1\n}"):                                                 "require[0].balance: \"-1\" is not a plain amount such as 0.50; it must not be negative, at Caddyfile:10",
		minimal("require {\nbalance $1\n}"):                                                 "require[0].balance: \"$1\" is not a plain amount",
		minimal("require {\nbalance 1,000\n}"):                                              "require[0].balance: \"1,000\" is not a plain amount",
		minimal("require {\nbalance 1e3\n}"):                                                "require[0].balance: \"1e3\" is not a plain amount",
		minimal("require {\nbalance 1\nbalance 2\n}"):                                       "balance is set twice, at Caddyfile:11",
		minimal("require {\nbalance 1 2\n}"):                                                "require[0].balance: wrong number of arguments, at Caddyfile:10",
		minimal("require {\nuser 1\n}\nrequire {\nbalance much\n}"):                         "require[1].balance: \"much\" is not a plain amount such as 0.50; it must not be negative, at Caddyfile:13",
		minimal("require {\nuser\n}"):                                                       "require[0].user: wrong number of arguments, at Caddyfile:10",
		minimal("require {\nemail_domain @example.com\n}"):                                  "require[0].email_domain: \"@example.com\" is not a domain such as example.com, at Caddyfile:10",
		minimal("require {\nemail_domain a.example *.example\n}"):                           "require[0].email_domain: \"*.example\" is not a domain",
		minimal("require {\nblance 1\n}"):                                                   "unknown word 'blance'; did you mean 'balance'?, at Caddyfile:10",
		minimal("require paid {\nuser 1\n}"):                                                "require[0].paths: \"paid\" is not a path pattern: it must begin with / or *, at Caddyfile:9",
		minimal("require /paid[ {\nuser 1\n}"):                                              "require[0].paths: \"/paid[\" is not a path pattern: a bracket is not closed, or nothing follows a backslash, at Caddyfile:9",
		minimal(strings.Repeat("require {\nuser 1\n}\n", 65)):                               "require: has 65 blocks; the limit is 64",
		minimal("assertion x"):                                                              "assertion: wrong number of arguments, at Caddyfile:9",
		minimal("assertion {\nheader Cookie\n}"):                                            "assertion.header: Cookie already has another meaning: choose another name, at Caddyfile:10",
		minimal("assertion {\nheader Tollgate-Reason\n}"):                                   "assertion.header: Tollgate-Reason already has another meaning",
		minimal("assertion {\nheader x_user_id\n}"):                                         "assertion.header: X_user_id already carries a part of the identity",
		minimal("assertion {\nheader \"a b\"\n}"):                                           "assertion.header: \"a b\" is not a valid header name",
		minimal("assertion {\nlifetime 6m\n}"):                                              "assertion.lifetime: must be from 10s to 5m, at Caddyfile:10",
		minimal("assertion {\nlifetime 9s\n}"):                                              "assertion.lifetime: must be from 10s to 5m",
		minimal("endpoints {\njwks.json /keys\n}"):                                          "endpoints.jwks.json: the endpoint needs an `assertion` block",
		minimal("brand a\nforward_auth"):                                                    "forward_auth: needs a session store on the server, because the proxy in front does not pass renewed cookies on to the browser; set `session { store storage }` or `session { store redis { … } }`, at Caddyfile:10",
		minimal("session {\nstore cookie\n}\nforward_auth"):                                 "forward_auth: needs a session store on the server, because the proxy in front does not pass renewed cookies on to the browser; set `session { store storage }`",
		stored("forward_auth x"):                                                            "forward_auth: wrong number of arguments, at Caddyfile:12",
		stored("forward_auth {\ntrusted_proxy 10.0.0.0/8\n}"):                               "unknown word 'trusted_proxy'; did you mean 'trusted_proxies'?, at Caddyfile:13",
		stored("forward_auth {\ntrusted_proxies\n}"):                                        "forward_auth.trusted_proxies: wrong number of arguments, at Caddyfile:13",
		stored("forward_auth {\ntrusted_proxies 10.0.0.0/33\n}"):                            "forward_auth.trusted_proxies: \"10.0.0.0/33\" is neither an address nor a CIDR range nor private_ranges, at Caddyfile:13",
		stored("forward_auth {\ntrusted_proxies ::1 proxy.example\n}"):                      "forward_auth.trusted_proxies: \"proxy.example\" is neither",
		stored("forward_auth {\ntrusted_proxies fe80::1%eth0\n}"):                           "is neither",
		stored("forward_auth {\ntrusted_proxies ::ffff:10.0.0.1\n}"):                        "is neither",
		stored("endpoints {\nauth /who\n}"):                                                 "endpoints.auth: the endpoint needs a `forward_auth` block, at Caddyfile:13",
		stored("forward_auth\nendpoints {\nauth /who\nstart /who/start\n}"):                 "endpoints.auth: every path below /who belongs to auth: move the endpoint start elsewhere, at Caddyfile:14",
		stored("forward_auth\nendpoints {\nauth /oauth\n}"):                                 "endpoints.auth: every path below /oauth belongs to auth: move the endpoint ",
		stored("forward_auth\nidentity {\nheader Set-Cookie x\n}"):                          "identity.header: Set-Cookie has another meaning in the response of forward_auth: choose another name, at Caddyfile:14",
		stored("forward_auth\nidentity {\nheader X-" + strings.Repeat("a", 2000) + " x\n}"): "identity: the header names alone take",
		minimal("pass_tokens"):                                                              "unknown word 'pass_tokens'",
		minimal("balance {\non_unknown maybe\n}"):                                           "balance.on_unknown: \"maybe\" is not one of deny, allow, at Caddyfile:10",
		minimal("session {\nstore memcached\n}"):                                            "unknown session store 'memcached', at Caddyfile:10",
		minimal("session {\nstore cokie\n}"):                                                "did you mean 'cookie'?",
		minimal("session {\nstore cookie x\n}"):                                             "store cookie has no options",
		minimal("brand a\nbrand b"):                                                         "brand is set twice, at Caddyfile:10",
		minimal("provider aihubmix {\n}"):                                                   "provider is set twice, at Caddyfile:9",
		minimal("secret a\nsecret b"):                                                       "secret is set twice, at Caddyfile:10",
		minimal("brand"):                                                                    "brand: wrong number of arguments, at Caddyfile:9",
		minimal("logo testdata/logo.svg"):                                                   "logo: needs `brand`, which is the text for users who do not see the picture, at Caddyfile:9",
		minimal("brand a\nlogo nowhere.png"):                                                "logo: open nowhere.png: no such file or directory, at Caddyfile:10",
		minimal("brand a\nlogo testdata"):                                                   "logo: read testdata: is a directory, at Caddyfile:10",
		minimal("brand a\nlogo go.sum"):                                                     "logo: go.sum has more than 32768 bytes, which is too much for a file that every page contains, at Caddyfile:10",
		minimal("brand a\nlogo Makefile"):                                                   "logo: Makefile is not a PNG, JPEG or SVG picture, at Caddyfile:10",
		minimal("accent blue"):                                                              "accent: \"blue\" is not a colour in three or six hex digits, such as 3a4cc9, at Caddyfile:9",
		minimal("accent #3a4cc9"):                                                           "accent: colour missing: `#` starts a comment in a Caddyfile; write for example `accent 3a4cc9`, at Caddyfile:9",
		minimal("accent 333 333"):                                                           "accent: wrong number of arguments, at Caddyfile:9",
		minimal("pages nowhere"):                                                            "pages: nowhere: open .: no such file or directory, at Caddyfile:9",
		minimal("pages Makefile"):                                                           "pages: Makefile: ",
		minimal("pages docs"):                                                               "pages: docs: ",
		minimal("accent 333\naccent 444"):                                                   "accent is set twice, at Caddyfile:10",
		minimal("brand a b"):                                                                "Caddyfile:9",
		minimal("brand \"\""):                                                               "brand is empty, at Caddyfile:9",
		minimal("login_page"):                                                               "login_page: write on or off behind it, at Caddyfile:9",
		minimal("login_page maybe"):                                                         "login_page: 'maybe' is neither on nor off, at Caddyfile:9",
		minimal("refresh_before soon"):                                                      "refresh_before: 'soon' is not a duration such as 90s, 5m or 30d, at Caddyfile:9",
		minimal("refresh_before -5m"):                                                       "must be more than zero, at Caddyfile:9",
		minimal("stream_recheck 500ms"):                                                     "stream_recheck: 500ms is less than 1s, the minimum: each check reads the session of every open stream, at Caddyfile:9",
		minimal("insecure_http yes"):                                                        "Caddyfile:9",
		minimal("insecure_http"):                                                            "insecure_http: contradicts redirect_uri, which is https or on loopback already: remove insecure_http, at Caddyfile:9",
		minimal("secret changeme"):                                                          "secret: is too short: it has 6 bytes, and needs at least 32 random bytes",
		minimal("secret " + strings.Repeat("!", 50)):                                        "secret: is neither 64 or more hex digits nor base64url",
		minimal("public page"):                                                              "public: \"page\" is not a path pattern: it must begin with / or *, at Caddyfile:9",
		minimal("public /%61"):                                                              "public: \"/%61\" must be written without percent escapes and without a query, at Caddyfile:9",
		minimal("public /a\noptional /a"):                                                   "optional: \"/a\" is already in public: remove it from one of them, at Caddyfile:10",
		minimal("after_login //evil"):                                                       "after_login: \"//evil\" is not a path of this origin, at Caddyfile:9",
		minimal("after_logout https://x.example"):                                           "after_logout: ",
		minimal("error_redirect x"):                                                         "error_redirect: ",
		minimal("endpoints {\nstrat /x\n}"):                                                 "unknown word 'strat'; did you mean 'start'?, at Caddyfile:10",
		minimal("endpoints {\nstart x\n}"):                                                  "endpoints.start: \"x\" is not a plain path, at Caddyfile:10",
		minimal("endpoints {\nstart /oauth/logout\n}"):                                      "has the same path as the endpoint",
		minimal("endpoints {\ncallback /x\n}"):                                              "endpoints.callback: contradicts redirect_uri",
		minimal("path_prefix oauth"):                                                        "path_prefix: ",
		minimal("identity defualt"):                                                         "unknown preset 'defualt'; did you mean 'default'?, at Caddyfile:9",
		minimal("pass_access_token \"X Y\""):                                                "pass_access_token: \"X Y\" is not a valid header name, at Caddyfile:9",
		minimal("pass_access_token Cookie"):                                                 "pass_access_token: Cookie cannot carry the token",
		minimal("pass_access_token x_user_id"):                                              "pass_access_token: X_user_id already carries the identity",
		minimal("pass_access_token X-A X-B"):                                                "pass_access_token: wrong number of arguments",
		stored("forward_auth\npass_access_token Location"):                                  "pass_access_token: Location has another meaning in the response of forward_auth",
		minimal("retry_unauthorized on"):                                                    "retry_unauthorized: needs pass_access_token",
		minimal("retry_unauthorized maybe"):                                                 "retry_unauthorized: 'maybe' is neither on nor off",
		minimal("identity none default"):                                                    "identity: none cannot be combined with other presets, at Caddyfile:9",
		minimal("identity {\nheader X-A {http.auth.user.idd}\n}"):                           "identity.header: unknown placeholder {http.auth.user.idd}; did you mean 'id'?, at Caddyfile:10",
		minimal("identity {\nheader \"X Y\" z\n}"):                                          "identity: \"X Y\" is not a valid header name",
		minimal("identity {\nheader Connection z\n}"):                                       "identity: Connection cannot carry the identity",
		minimal("identity {\nheader X-A 1\nheader x_a 2\n}"):                                "X",
		minimal("identity {\nheader X-A 1\nheader X-A 2\n}"):                                "identity.header: X-A is set twice, at Caddyfile:11",
		minimal("session {\nlifetime 31d\n}"):                                               "session.lifetime: must not be more than 30d",
		minimal("session {\nlifetime 1h\nidle_timeout 2h\n}"):                               "session.idle_timeout: must not be more than lifetime, at Caddyfile:11",
		minimal("session {\nsame_site any\n}"):                                              "session.same_site: \"any\" is not one of lax, strict, none, at Caddyfile:10",
		minimal("session {\ncookie_domain other.com\n}"):                                    "session.cookie_domain: \"other.com\" is not the host of redirect_uri",
		minimal("session {\ncookie_domain p.example.com\n}"):                                "session.cookie_domain",
		minimal("session {\ncookie_name \"a b\"\n}"):                                        "session.cookie_name: \"a b\" is not a valid cookie name",
		minimal("session {\ncookie_name __Host-x\ncookie_domain example.com\n}"):            "the prefix __Host- needs an https origin and no cookie_domain",
		minimal("balance {\nmax_age 20m\nmax_stale 1m\n}"):                                  "balance.max_stale: must not be less than max_age, at Caddyfile:11",
		replaced("aihubmix", "aihubmx"):                                                     "unknown provider 'aihubmx'; did you mean 'aihubmix'?, at Caddyfile:4",
		replaced("client_secret secret", ""):                                                "provider.client_secret: is required, at Caddyfile:4",
		replaced("client_secret secret", "client_secret \"\""):                              "client_secret is empty, at Caddyfile:6",
		replaced("client_id id", ""):                                                        "provider.client_id: is required, at Caddyfile:4",
		replaced("client_id id", "client_authentication none\nclient_id id"):                "provider.client_secret: contradicts client_authentication none, at Caddyfile:7",
		replaced("client_id id", "client_authentication post\nclient_id id"):                "provider.client_authentication: \"post\" is not one of",
		replaced("client_id id", "base_url http://x.example\nclient_id id"):                 "provider.base_url: \"http://x.example\" must be https, or http on loopback, at Caddyfile:5",
		replaced("client_id id", "token_endpoint x\nclient_id id"):                          "provider.token_endpoint: is not an absolute URL: it must begin with https:// and a host, at Caddyfile:5",
		replaced("client_id id", "authorize_param state x\nclient_id id"):                   "provider.authorize_param: \"state\" is set by tollgate itself, at Caddyfile:5",
		replaced("client_id id", "fields {\nnmae x\n}\nclient_id id"):                       "unknown word 'nmae'",
		replaced("client_id id", "fields {\nid a..b\n}\nclient_id id"):                      "provider.fields.id: \"a..b\" is not a dotted path of member names, at Caddyfile:6",
		replaced("aihubmix", "oauth2"):                                                      "provider.authorization_endpoint: is required: tollgate does not know the endpoints of this provider, and does not use discovery, at Caddyfile:4",
		replaced("redirect_uri https://app.example.com/oauth/callback", ""):                 "redirect_uri: is required",
		replaced("https://app", "http://app"):                                               "redirect_uri: \"http://app.example.com/oauth/callback\" must be https (http only on loopback); to allow plain http anyway set `insecure_http`, at Caddyfile:8",
		replaced("/oauth/callback", ""):                                                     "needs a plain path, such as /oauth/callback",
		replaced("/oauth/callback", "/oauth/callback?x=1"):                                  "redirect_uri: must not contain a user, query or fragment",
		replaced("/oauth/callback", "/oauth/callback?"):                                     "redirect_uri: must not contain a user, query or fragment",
		replaced("/oauth/callback", "/oauth/callback#"):                                     "redirect_uri: must not contain a user, query or fragment",
		replaced("/oauth/callback", "/oauth/../callback"):                                   "needs a plain path, such as /oauth/callback",
		replaced("https://app.example.com/oauth/callback", "http://127.0.0.1:80/cb\nsession {\nsame_site none\n}"):         "session.same_site: none needs an https redirect_uri",
		replaced("https://app.example.com/oauth/callback", "http://127.0.0.1:80/cb\nsession {\npartitioned on\n}"):         "session.partitioned: needs an https redirect_uri",
		replaced("https://app.example.com/oauth/callback", "http://127.0.0.1:80/cb\nsession {\ncookie_name __Secure-x\n}"): "the prefix __Secure- needs an https origin",
	} {
		if _, err := adaptHandler(block); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
	}
}

func TestEmptyPlaceholderIsAWarningInAdaptAndStopsTheStart(t *testing.T) {
	t.Setenv("TOLLGATE_TEST_EMPTY", "")
	t.Setenv("TOLLGATE_TEST_BLANK", " ")
	t.Setenv("TOLLGATE_TEST_HTTP", "http://app.example.com/oauth/callback")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for block, want := range map[string]string{
		strings.Replace(minimalBlock, "client_secret secret", "client_secret {env.TOLLGATE_TEST_UNSET}", 1):    "provider.client_secret: environment variable TOLLGATE_TEST_UNSET is not set; forgot `--envfile tollgate.env`?",
		strings.Replace(minimalBlock, "client_secret secret", "client_secret {env.TOLLGATE_TEST_EMPTY}", 1):    "provider.client_secret: environment variable TOLLGATE_TEST_EMPTY is empty",
		strings.Replace(minimalBlock, "client_secret secret", "client_secret {env.TOLLGATE_TEST_BLANK}", 1):    "provider.client_secret: is empty",
		strings.Replace(minimalBlock, "client_secret secret", "client_secret {file./nowhere/at/all}", 1):       "provider.client_secret: file /nowhere/at/all cannot be read: no such file or directory",
		strings.Replace(minimalBlock, "https://app.example.com/oauth/callback", "{env.TOLLGATE_TEST_HTTP}", 1): "redirect_uri: \"{env.TOLLGATE_TEST_HTTP}\" must be https",
		minimalBlock + "secret {env.TOLLGATE_TEST_UNSET}":                                                      "secret: environment variable TOLLGATE_TEST_UNSET is not set",
		minimalBlock + "identity {\nheader X-A \"a {env.TOLLGATE_TEST_UNSET}\"\n}":                             "identity.header: environment variable TOLLGATE_TEST_UNSET is not set",
		strings.Replace(minimalBlock, "client_secret secret", "client_secret {file."+empty+"}", 1):             "provider.client_secret: file " + empty + " is empty",
		minimalBlock + "secret {env.TOLLGATE_TEST_HTTP}":                                                       "secret: is neither",
	} {
		text := "{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + block + "\n\t}\n}\n"
		if _, err := gatewaytest.Adapt(text); err != nil {
			t.Errorf("adapt: %s: %v", block, err)
		}
		if _, _, err := gatewaytest.Provision(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
	}
}

func TestPlaceholdersAreReadAtTheStart(t *testing.T) {
	t.Setenv("TOLLGATE_TEST_ID", "id from env")
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id "+gatewaytest.ClientID, "client_id {env.TOLLGATE_TEST_ID}", 1)
	s.Load()
	if got := s.NewBrowser().StartLogin("").Get("client_id"); got != "id from env" {
		t.Errorf("client_id: %q", got)
	}
}

func TestUnknownJSONKeysAreRefused(t *testing.T) {
	_, _, err := gatewaytest.ProvisionJSON([]byte(`{"admin":{"disabled":true},"apps":{"http":{"servers":{"srv0":{"routes":[{"handle":[{"handler":"tollgate","redirect_url":"x"}]}]}}}}}`))
	if err == nil || !strings.Contains(err.Error(), "redirect_url") {
		t.Errorf("got %v", err)
	}
}

func TestDirectiveNeedsNoOrderOption(t *testing.T) {
	config, err := gatewaytest.Adapt("http:// {\n\treverse_proxy 127.0.0.1:1\n\trequest_header X y\n\ttollgate {\n" + minimalBlock + "\n}\n\tbasic_auth {\n\t\ta $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n\t}\n\trewrite /x /y\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for _, handler := range []string{`"handler":"rewrite"`, `"handler":"authentication"`, `"handler":"tollgate"`, `"handler":"headers"`, `"handler":"reverse_proxy"`} {
		at := strings.Index(string(config), handler)
		if at < last {
			t.Errorf("%s stands too early: %s", handler, config)
		}
		last = at
	}
}
