package web

import (
	"strings"
	"testing"
)

func TestEachCauseIsExplained(t *testing.T) {
	for cause, want := range map[string]string{
		"missing_parameters":        "Something was missing",
		"invalid_state":             "This sign-in is no longer valid",
		"expired":                   "This sign-in is too old",
		"other_origin":              "This sign-in began at another address",
		"login_loop":                "Your browser does not keep the sign-in",
		"rate_limited":              "Too many sign-ins right now",
		"timeout":                   "AIHubMix takes too long",
		"unreachable":               "AIHubMix cannot be reached",
		"userinfo_denied":           "Your account information cannot be read",
		"inactive_user":             "This account is not active",
		"session_too_large":         "This site cannot store your sign-in",
		"store_unavailable":         "This site cannot store sign-ins right now",
		"invalid_response":          "The response from AIHubMix cannot be used",
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

func TestATopUpThatFailedHasItsOwnWords(t *testing.T) {
	d := fullData()
	d.Cause, d.Words = "timeout", "topup"
	doc, _ := mustRender(t, Error, d)
	if got := text(doc.one(t, "h1")); got != "Topping up is not possible right now" || !strings.Contains(doc.visibleText(), "Error code: timeout") {
		t.Errorf("got heading %q on %q", got, doc.visibleText())
	}
}

func TestAPageWithACauseShowsTheRequestID(t *testing.T) {
	for _, page := range []Page{Error, Forbidden, Unavailable, Popup} {
		d := fullData()
		d.Cause, d.Popup.OK, d.Popup.Error, d.RequestID = "timeout", false, "timeout", "id-of-the-request"
		doc, _ := mustRender(t, page, d)
		if !strings.Contains(doc.visibleText(), "Request ID: id-of-the-request") {
			t.Errorf("%s: got %q, want the request id", page, doc.visibleText())
		}
		d.Cause, d.Popup.Error = "", ""
		if doc, _ := mustRender(t, page, d); strings.Contains(doc.visibleText(), "Request ID") {
			t.Errorf("%s: the request id is shown without a cause", page)
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
