package web

import (
	"strings"
	"testing"
)

func TestEachCauseIsExplained(t *testing.T) {
	for cause, want := range map[string]string{
		"missing_parameters":        "Something was missing",
		"invalid_state":             "This sign-in is no longer valid",
		"expired":                   "This sign-in made room for a newer one",
		"invalid_response":          "The response from AIHubMix cannot be used",
		"topup_failed":              "Topping up is not possible right now",
		"access_denied":             "Sign-in was declined",
		"server_error":              "The sign-in went wrong",
		"temporarily_unavailable":   "AIHubMix is busy right now",
		"invalid_grant":             "The sign-in could not be completed",
		"invalid_request":           "Sign-in is not set up correctly",
		"unauthorized_client":       "Sign-in is not set up correctly",
		"unsupported_response_type": "Sign-in is not set up correctly",
		"invalid_scope":             "Sign-in is not set up correctly",
		"invalid_client":            "Sign-in is not set up correctly",
		"unsupported_grant_type":    "Sign-in is not set up correctly",
	} {
		d := fullData()
		d.Cause = cause
		doc, _ := mustRender(t, Error, d)
		if got := text(doc.one(t, "h1")); got != want {
			t.Errorf("%s: heading %q, want %q", cause, got, want)
		}
		if got := text(doc.all("title")[0]); got != want+" · Acme Studio" {
			t.Errorf("%s: title %q", cause, got)
		}
		// For whoever the user asks for help.
		if !strings.Contains(doc.visibleText(), "Error code: "+cause) {
			t.Errorf("%s: the code is not shown", cause)
		}
	}
}

func TestAnUnknownCauseGetsTheGeneralTextAndIsNotEchoed(t *testing.T) {
	for _, cause := range []string{
		"", "unknown", "denied", "title", "INVALID_STATE", "invalid_state ", "invalid_state.title",
		"Your account was hacked, call 555-0100", "<b>bold</b>", "../../en", strings.Repeat("x", 1<<20),
	} {
		d := fullData()
		d.Cause = cause
		doc, _ := mustRender(t, Error, d)
		if got := text(doc.one(t, "h1")); got != "The sign-in did not work" {
			t.Errorf("%.40q: heading %q", cause, got)
		}
		if len(cause) > 8 && strings.Contains(doc.body, cause) {
			t.Errorf("%.40q is on the page", cause)
		}
		if strings.Contains(doc.visibleText(), "Error code") {
			t.Errorf("%.40q: an error code is shown", cause)
		}
	}
}
