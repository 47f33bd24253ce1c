package tollgate_test

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

func TestThePrintedBlockIsACaddyfile(t *testing.T) {
	r := commands.Start(t, "Ctrl-C ends it", "provider", "--listen", "127.0.0.1:0")
	block := r.Between("In the Caddyfile\n", "\nCtrl-C")
	if _, err := gatewaytest.Adapt("http://127.0.0.1:8080 {\n" + block + "}\n"); err != nil {
		t.Errorf("%v:\n%s", err, block)
	}
}
