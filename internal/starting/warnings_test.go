package starting_test

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-tollgate/tollgate/internal/starting"
)

func TestEachWarningIsOneLine(t *testing.T) {
	for want, w := range map[string]starting.Warnings{
		"":                               {},
		"trusts every address":           {TrustsEverybody: true},
		"a gap":                          {Gaps: []string{"a gap"}},
		"after_logout needs a login":     {LogoutNeedsLogin: "/bye"},
		"session.same_site none":         {CrossSiteCookie: true},
		"pass_access_token: Caddy hides": {TokenIsLogged: true},
	} {
		core, logs := observer.New(zapcore.WarnLevel)
		w.Log(zap.New(core))
		lines := logs.All()
		if want == "" && len(lines) == 0 {
			continue
		}
		if len(lines) != 1 || want == "" || !strings.Contains(lines[0].Message, want) {
			t.Errorf("%+v: got %v, want one line with %q", w, lines, want)
			continue
		}
		fields := lines[0].ContextMap()
		if w.LogoutNeedsLogin != "" && fields["after_logout"] != "/bye" {
			t.Errorf("%s: got fields %v", want, fields)
		}
	}
}
