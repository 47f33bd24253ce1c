package tollgate

import (
	"testing"
)

func TestThePrintedBlockIsACaddyfile(t *testing.T) {
	r := commands.Start(t, "Ctrl-C ends it", "provider", "--listen", "127.0.0.1:0")
	block := r.Between("In the Caddyfile\n", "\nCtrl-C")
	if _, err := adapt("http://127.0.0.1:8080 {\n" + block + "}\n"); err != nil {
		t.Errorf("%v:\n%s", err, block)
	}
}
