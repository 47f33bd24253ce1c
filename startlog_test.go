package tollgate_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// startLog loads these sites, as a start and `caddy validate` do, and gives what that
// wrote to the log. Global is more lines for the global options.
func startLog(t *testing.T, global, sites string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log")
	provisionEach(t, "{\nadmin off\nauto_https off\nstorage file_system "+t.TempDir()+"\nlog {\noutput file "+file+"\n}\n"+global+"\n}\n"+sites)
	provisionEach(t, "http:// {\nrespond ok\n}\n") // the log goes back to where it was
	if _, err := os.Stat(file); os.IsNotExist(err) {
		return ""
	}
	return manualtest.ReadFile(t, file)
}

// provisionEach provisions a Caddyfile with any number of servers, and lets go of it.
func provisionEach(t *testing.T, text string) {
	t.Helper()
	config, err := gatewaytest.Adapt(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	gatewaytest.Provisioning.Lock()
	defer gatewaytest.Provisioning.Unlock()
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&parsed)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		routes := server.Routes
		for _, named := range server.NamedRoutes {
			routes = append(routes, *named)
		}
		for _, h := range gatewaytest.HandlersIn(routes) {
			if err := h.Cleanup(); err != nil {
				t.Error(err)
			}
		}
	}
}
