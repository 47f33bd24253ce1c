package neighbours

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/browser"
)

func TestLookingForOtherSitesCookiesAllocatesNothing(t *testing.T) {
	n := &neighbours{}
	names := browser.CookieNames{"tollgate": {}, "app": {}}
	n.names.Store(&names)
	jar := &browser.Jar{Name: "tollgate", Others: n.cookieNames}
	header := http.Header{"Cookie": {"theme=dark; lang=en; session-login-x=1; long=" + strings.Repeat("-login-", 500)}}
	alone := testing.AllocsPerRun(100, func() { (&browser.Jar{Name: "long"}).Take(header) })
	if allocs := testing.AllocsPerRun(100, func() { jar.Take(header) }); allocs > alone {
		t.Errorf("got %v allocations, want at most those of a site that is alone: %v", allocs, alone)
	}
}
