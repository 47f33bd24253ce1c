package command

import (
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

func TestKeygenPrintsASecretAndNothingElse(t *testing.T) {
	first, second := commands.Run("keygen"), commands.Run("keygen")
	if first.Err != nil || first.Errs != "" {
		t.Fatalf("got %v, %q", first.Err, first.Errs)
	}
	secret, rest, _ := strings.Cut(first.Out, "\n")
	if b, err := keys.ParseSecret(secret); err != nil || len(b) != keys.MinSecret || rest != "" {
		t.Errorf("%q is not one secret: %v", first.Out, err)
	}
	if first.Out == second.Out {
		t.Error("two secrets are the same")
	}
}
