package tollgate_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestVulnDistinguishesFindingsFromAnUnreachableDatabase runs .ci/vuln with commands in the place
// of govulncheck, which say and return what that does.
func TestVulnDistinguishesFindingsFromAnUnreachableDatabase(t *testing.T) {
	const unreachable = `echo 'govulncheck: fetching vulnerabilities: Get "https://vuln.go.dev/index/modules.json.gz": no such host' >&2; exit 1`
	const finding = `echo 'Vulnerability #1: GO-2026-0001'; echo 'More info: https://pkg.go.dev/vuln/GO-2026-0001'; `
	for name, c := range map[string]struct {
		stub   string
		status int
		says   string
	}{
		"no finding":              {"echo 'No vulnerabilities found.'", 0, "No vulnerabilities found."},
		"a finding":               {finding + "exit 3", 1, "make vuln: FOUND"},
		"a finding, by go run":    {finding + "echo 'exit status 3' >&2; exit 1", 1, "make vuln: FOUND"},
		"an unreachable database": {unreachable, 75, "make vuln: NOT CHECKED. The vulnerability database cannot be reached."},
		"a fault of its own":      {"echo 'loading packages: none' >&2; exit 1", 1, "make vuln: NOT CHECKED. The check itself failed"},
		"no such program":         {"exec /nonexistent", 1, "make vuln: NOT CHECKED. The check itself failed"},
	} {
		out, err := exec.Command(".ci/vuln", "sh", "-c", c.stub).CombinedOutput()
		status := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			status = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if status != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: got status %d, want %d; %q, want %q", name, status, c.status, out, c.says)
		}
	}
}
