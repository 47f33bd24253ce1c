// Package gatewaytest runs a whole gateway in a test: a simulated provider, Caddy with
// tollgate, and an upstream that says what it received. The tests use it over HTTP, as
// people and applications do.
//
// Begin with New, which gives a Site, and Site.NewBrowser, which gives a Browser:
//
//	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /open/*"})
//	b := s.NewBrowser().SignIn()
//	s.Clock.Advance(2 * time.Hour)
//	seen := b.Get("/page").Seen(t)
//
// A Site is provisioned and not run: it has no listeners of Caddy's, no log files and no
// admin API. Run gives a Caddy that has all of these, and NewFleet several gateways in
// processes of their own. A test program that uses NewFleet calls Main in its TestMain.
package gatewaytest

import (
	"fmt"
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// Main is the TestMain of a package that uses this one. It keeps what Caddy stores by
// default, a generated secret for example, out of the home of the person who runs the
// tests, and calls the functions in after when they have run. In a process that NewFleet has
// started, it is a replica.
func Main(m *testing.M, after ...func()) {
	if os.Getenv(replicaEnv) != "" {
		exitOn(runReplica())
		return
	}
	folder, err := os.MkdirTemp("", "tollgate-tests-")
	exitOn(err)
	caddy.DefaultStorage.Path = folder
	status := m.Run()
	for _, end := range after {
		end()
	}
	os.RemoveAll(folder)
	os.Exit(status)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
