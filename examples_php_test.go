package tollgate_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/fcgi"
	"path/filepath"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// servePHP answers FastCGI requests, as PHP-FPM does, with the variables that a script
// finds in $_SERVER.
func servePHP(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go fcgi.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		variables := fcgi.ProcessEnv(r)
		_, set := variables["REMOTE_USER"]
		json.NewEncoder(w).Encode(phpRequest{variables["REMOTE_USER"], set, r.Header.Get("X-User-Id"), r.URL.Path})
	}))
	return listener.Addr().String()
}

// phpRequest is a request as a PHP script sees it.
type phpRequest struct {
	RemoteUser    string
	RemoteUserSet bool
	UserID        string
	URI           string
}

func TestExamplePHPTellsTheUserAsRemoteUser(t *testing.T) {
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "index.php"), "<?php")
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	loadExample(s, t, "php-fastcgi", "unix//run/php/php-fpm.sock", servePHP(t), "/srv/app/public", root)
	b.Follow("/")
	forged := []string{"Remote-User: 1", "Remote_User: 1", "REMOTE-USER: 1", "X-User-Id: 1", "Authorization: Basic MTox"}
	for _, c := range []struct {
		path     string
		signedIn bool
		status   int
		user     string
	}{
		{"/", true, 200, gatewaytest.UserID},
		{"/page/of/the/application", true, 200, gatewaytest.UserID},
		{"/index.php", true, 200, gatewaytest.UserID},
		{"/about", true, 200, ""},
		{"/about", false, 200, ""},
		{"/page", false, 401, ""},
		{"/admin", true, 200, gatewaytest.UserID},
	} {
		client := b
		if !c.signedIn {
			client = s.NewBrowser()
		}
		a := client.Get(c.path, forged...)
		if a.StatusCode != c.status {
			t.Errorf("%s, signed in %v: got %d, want %d", c.path, c.signedIn, a.StatusCode, c.status)
			continue
		}
		if c.status != http.StatusOK {
			continue
		}
		var seen phpRequest
		if err := json.Unmarshal([]byte(a.Text), &seen); err != nil {
			t.Fatalf("%s: no answer of PHP: %s", c.path, a.Text)
		}
		if seen.RemoteUser != c.user || !seen.RemoteUserSet || seen.UserID != c.user {
			t.Errorf("%s, signed in %v: got %+v, want the user %q", c.path, c.signedIn, seen, c.user)
		}
	}
}

// TestExamplePHPHasNoSecondAddress: PHP answers a path behind its script, too.
func TestExamplePHPHasNoSecondAddress(t *testing.T) {
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "index.php"), "<?php")
	s := gatewaytest.New(t, gatewaytest.Options{})
	loadExample(s, t, "php-fastcgi", "unix//run/php/php-fpm.sock", servePHP(t), "/srv/app/public", root, "user 12345", "user 7")
	b := s.NewBrowser()
	b.Follow("/")
	for path, want := range map[string]int{
		"/": 200, "/admin": 403, "/admin/x": 403, "/ADMIN/x": 403, "/index.php/admin": 403, "/index.php/admin/x": 403,
		"/index.php//admin": 400, "/index.php/%2e/admin": 400, "/index.php/x%2f..%2fadmin": 400, "/admin./x": 400,
	} {
		res := rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
		}
	}
}
