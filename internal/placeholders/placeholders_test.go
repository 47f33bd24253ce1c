package placeholders_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/placeholders"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// user returns an identity with this user id and name.
func user(id, name string) *identity.Identity {
	info := oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{
		oauth.FieldID: oauth.Scalar(id), oauth.FieldUsername: oauth.Scalar(`"` + name + `"`), oauth.FieldStatus: "1", oauth.FieldBalance: `"7.50"`,
	}, time.Now())
	return &identity.Identity{
		Session:   &session.Session{ID: session.ID{1}, User: info},
		View:      account.View{Info: &info, State: "fresh", Age: 3 * time.Second, Told: true},
		Available: "7.40",
	}
}

func TestPlaceholdersHaveTheIdentityOfTheLastSet(t *testing.T) {
	for _, test := range []struct {
		name       string
		identities []*identity.Identity
		template   string
		want       string
	}{
		{"a user", []*identity.Identity{user("12", "ann")}, "{http.auth.user.id} {http.auth.user.username} {http.auth.user.balance} {http.auth.user.status}", "12 ann 7.50 1"},
		{"what is computed", []*identity.Identity{user("12", "ann")}, "{http.auth.user.balance_age} {http.auth.user.balance_state} {http.auth.user.available}", "3 fresh 7.40"},
		{"a field that the provider did not send", []*identity.Identity{user("12", "ann")}, "<{http.auth.user.email}>", "<>"},
		{"an anonymous request", []*identity.Identity{nil}, "<{http.auth.user.id}{http.auth.user.available}>", "<>"},
		{"first anonymous, then a user", []*identity.Identity{nil, user("12", "ann")}, "{http.auth.user.id} {http.auth.user.username}", "12 ann"},
		{"another user before", []*identity.Identity{user("11", "bob"), user("12", "ann")}, "{http.auth.user.id} {http.auth.user.username}", "12 ann"},
		{"a name that looks like a placeholder", []*identity.Identity{user("12", "{http.auth.user.id}")}, "{http.auth.user.username}", "{http.auth.user.id}"},
		{"a name that is none of ours", []*identity.Identity{user("12", "ann")}, "<{http.auth.user.password}>", "<>"},
	} {
		repl := caddy.NewReplacer()
		for _, id := range test.identities {
			placeholders.Set(repl, id)
		}
		if got := placeholders.Expand(repl, test.template); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestEveryNameHasAValueOnAnonymousRequests(t *testing.T) {
	repl := caddy.NewReplacer()
	placeholders.Set(repl, nil)
	for _, name := range placeholders.Names() {
		if got, known := repl.Get(placeholders.Prefix + name); !known || got != "" {
			t.Errorf("%s: got %v, known: %t; want an empty value", name, got, known)
		}
	}
}

func TestRequestWithoutAReplacerHasNoPlaceholders(t *testing.T) {
	repl := placeholders.Of(&http.Request{})
	placeholders.Set(repl, user("12", "ann"))
	if got := placeholders.Expand(repl, "{http.auth.user.id}"); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}
