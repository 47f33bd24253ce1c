package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// run runs a program, and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// buildPackage builds a Debian package around a small program. The test binary prints the
// man pages and the completions.
func buildPackage(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asCaddy, "1")
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	t.Setenv("DEB_COMPRESSION", "gzip")
	folder := t.TempDir()
	run(t, "debian/build", "0.1.0", "amd64", "/bin/true", self, folder)
	return filepath.Join(folder, "caddy-tollgate_0.1.0_amd64.deb")
}

func TestPackageContainsWhatTheServiceNeeds(t *testing.T) {
	first := buildPackage(t)
	contents := run(t, "dpkg-deb", "--contents", first)
	for _, want := range []string{
		`-rwxr-xr-x root/root .* \./usr/bin/caddy\n`,
		`-rw-r--r-- root/root .* \./lib/systemd/system/tollgate\.service\n`,
		`-rw-r--r-- root/root .* \./etc/tollgate/Caddyfile\n`,
		`-rw-r--r-- root/root .* \./usr/share/man/man8/caddy-tollgate\.8\.gz\n`,
		`-rw-r--r-- root/root .* \./usr/share/man/man8/caddy-tollgate-register-app\.8\.gz\n`,
		`-rw-r--r-- root/root .* \./usr/share/bash-completion/completions/caddy\n`,
		`-rw-r--r-- root/root .* \./usr/share/zsh/vendor-completions/_caddy\n`,
		`-rw-r--r-- root/root .* \./usr/share/fish/vendor_completions\.d/caddy\.fish\n`,
		`-rw-r--r-- root/root .* \./usr/share/doc/caddy-tollgate/copyright\n`,
	} {
		if !regexp.MustCompile(want).MatchString(contents) {
			t.Errorf("the package has no %s:\n%s", want, contents)
		}
	}
	if got := run(t, "dpkg-deb", "--info", first, "conffiles"); got != "/etc/tollgate/Caddyfile\n" {
		t.Errorf("got conffiles %q: an upgrade would replace the operator's Caddyfile", got)
	}
	if second := buildPackage(t); manualtest.ReadFile(t, first) != manualtest.ReadFile(t, second) {
		t.Error("two builds of the package differ")
	}
}

// TestUnitIsValidAndHardened asks systemd about a copy of the unit that names a program of
// this machine.
func TestUnitIsValidAndHardened(t *testing.T) {
	unit := manualtest.ReadFile(t, "systemd/tollgate.service")
	file := filepath.Join(t.TempDir(), "tollgate.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit, "/usr/bin/caddy", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "systemd-analyze", "verify", "--man=no", file); strings.Contains(out, file) || strings.Contains(out, "tollgate.service") {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	// The exposure in tenths. 16 is what the unit had when it was written.
	run(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", file)
}

// TestUnitAndPackageUseTheSamePaths compares the paths of the unit with the package's.
func TestUnitAndPackageUseTheSamePaths(t *testing.T) {
	paths := regexp.MustCompile(`/etc/tollgate/[A-Za-z.]+`)
	for _, file := range []string{"systemd/tollgate.service", "debian/Caddyfile", "debian/postinst"} {
		for _, path := range paths.FindAllString(manualtest.ReadFile(t, file), -1) {
			known := []string{"/etc/tollgate/Caddyfile", "/etc/tollgate/tollgate.env", "/etc/tollgate/tollgate.secret", "/etc/tollgate/tollgate.secret.new"}
			if !slices.Contains(known, path) {
				t.Errorf("%s speaks of %s", file, path)
			}
		}
	}
}
