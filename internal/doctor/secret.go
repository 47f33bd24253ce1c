package doctor

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// makeSecret is what to do about a bad secret.
const makeSecret = "replace it with the output of `caddy tollgate keygen`; everybody signs in again once"

// checkSecret looks at the strength of the secret for the cookies, and at where it is.
func checkSecret(ctx context.Context, e *examination) []Finding {
	if len(e.Secrets) == 0 {
		return checkGeneratedSecret(ctx, e)
	}
	for i, secret := range e.Secrets {
		if reason := weakness(secret); reason != "" {
			return fail(fmt.Sprintf("%s is weak: %s. An attacker who guesses it can sign in as any user", secretName(i), reason), makeSecret)
		}
	}
	var findings []Finding
	for i, text := range e.SecretTexts {
		findings = append(findings, placeOf(secretName(i), text, e.Storage)...)
	}
	if len(findings) == 0 {
		return ok("%d random bytes, not in the configuration itself", len(e.Secrets[0]))
	}
	return findings
}

// secretName names one of the site's secrets.
func secretName(i int) string {
	if i == 0 {
		return "the secret"
	}
	return fmt.Sprintf("secret number %d", i+1)
}

// checkGeneratedSecret looks at a secret that tollgate makes and keeps in Caddy's storage.
func checkGeneratedSecret(ctx context.Context, e *examination) []Finding {
	state := "tollgate makes one after its first start, and keeps it in Caddy's storage"
	if e.Storage.Exists(ctx, keys.StoredSecretKey) {
		state = "tollgate has made one, and keeps it in Caddy's storage"
	}
	switch e.StoreName {
	case "storage":
		return warn("no secret is configured: "+state+", beside the sessions that it protects. With the secret, anyone who can write to the storage can make a session for any user",
			"set `secret` to the output of `caddy tollgate keygen`, from a file or a variable that is not in the storage")
	case "redis":
		return warn("no secret is configured: "+state+". Gateways that share Redis but not the storage do not know each other's sessions",
			"set `secret` to the output of `caddy tollgate keygen`, the same for all gateways")
	default:
		return ok("none is configured: %s", state)
	}
}

// weakness says why a secret is not random. It is empty for a random secret: a false alarm is
// less likely than one in a billion.
func weakness(secret []byte) string {
	secret = bytes.TrimRight(secret, "\r\n") // of a text that was encoded with its line end
	distinct := map[byte]bool{}
	printable := true
	for _, b := range secret {
		distinct[b] = true
		printable = printable && b >= ' ' && b <= '~'
	}
	text := base64.RawURLEncoding.EncodeToString(secret)
	text = text[:len(text)-1] // the last character may stand for fewer bits
	switch {
	case len(distinct) < 16:
		return "its characters repeat"
	case printable:
		return "it is a text, not random bytes"
	case strings.ToLower(text) == text || strings.ToUpper(text) == text:
		return "it has letters of one case only"
	default:
		return ""
	}
}

// fromFile matches a setting that is read from a file.
var fromFile = regexp.MustCompile(`^\{file\.(.+)\}$`)

// placeOf looks at where a secret is, by its text in the configuration.
func placeOf(name, text string, storage certmagic.Storage) []Finding {
	if !strings.HasPrefix(text, "{") {
		return warn(name+" is written in the configuration, which is often copied, shown and committed",
			"move it to a file that only Caddy can read, and write {file./path/to/it}, or to a variable, and write {env.NAME}")
	}
	found := fromFile.FindStringSubmatch(text)
	if found == nil {
		return nil
	}
	path := found[1]
	if folder, isFile := storage.(*certmagic.FileStorage); isFile && isWithin(path, folder.Path) {
		return warn(fmt.Sprintf("%s is in %s, inside Caddy's storage: a copy of the storage contains it", name, path),
			"move the file out of "+folder.Path+", so that a backup of the storage is useless without it")
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // it was there when the configuration was loaded
		return nil
	case err == nil && info.Mode().Perm()&0o004 != 0:
		return warn(fmt.Sprintf("every user of this machine can read %s, which has %s", path, name), "chmod o-r "+path)
	}
	return nil
}

// isWithin reports whether a file is inside a folder.
func isWithin(file, folder string) bool {
	file, err := filepath.Abs(file)
	if err != nil {
		return false
	}
	folder, err = filepath.Abs(folder)
	if err != nil {
		return false
	}
	within, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(within)
}

// checkClientSecret looks at where the client secret is. The token endpoint says whether it is
// right.
func checkClientSecret(_ context.Context, e *examination) []Finding {
	if e.ClientSecretText == "" {
		return ok("none: this is a public client")
	}
	if findings := placeOf("client_secret", e.ClientSecretText, e.Storage); findings != nil {
		return findings
	}
	return ok("not in the configuration itself")
}
