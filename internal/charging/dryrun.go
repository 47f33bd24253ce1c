package charging

import (
	"net/http"
	"strings"
)

// dryRun is the preference (RFC 7240) of a client that asks whether a request would pass.
const dryRun = "tollgate-dry-run"

// WantsDryRun reports whether a request is a dry run.
func WantsDryRun(header http.Header) bool {
	for _, line := range header["Prefer"] {
		for preference := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(preference, ";")
			name, _, _ = strings.Cut(name, "=")
			if strings.EqualFold(strings.TrimSpace(name), dryRun) {
				return true
			}
		}
	}
	return false
}

// NoteDryRun marks the response to a dry run.
func NoteDryRun(header http.Header) {
	header.Add("Vary", "Prefer")
	header.Set("Preference-Applied", dryRun)
}
