package simulator_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestParseFaultReadsEveryWord(t *testing.T) {
	for text, want := range map[string]struct {
		endpoint simulator.Endpoint
		fault    simulator.Fault
	}{
		"token=503":                        {simulator.Token, simulator.Fault{Status: 503}},
		"token=status:503":                 {simulator.Token, simulator.Fault{Status: 503}},
		" userinfo = delay:2s ":            {simulator.UserInfo, simulator.Fault{Delay: 2 * time.Second}},
		"refresh=late:1500ms":              {simulator.Refresh, simulator.Fault{Delay: 1500 * time.Millisecond, DelayAfterWork: true}},
		"refresh=cut":                      {simulator.Refresh, simulator.Fault{Cut: simulator.CutBeforeAnswer}},
		"refresh=half":                     {simulator.Refresh, simulator.Fault{Cut: simulator.CutHalf}},
		"exchange=cut;after-work":          {simulator.Exchange, simulator.Fault{Cut: simulator.CutBeforeAnswer, AfterWork: true}},
		"token=endless":                    {simulator.Token, simulator.Fault{Endless: true}},
		"token=hang":                       {simulator.Token, simulator.Fault{Hang: true}},
		"token=500;times:3":                {simulator.Token, simulator.Fault{Status: 500, Times: 3}},
		"token=500; times: 3; delay: 1s":   {simulator.Token, simulator.Fault{Status: 500, Times: 3, Delay: time.Second}},
		"topup=502;probability:0.25":       {simulator.TopUp, simulator.Fault{Status: 502, Probability: 0.25}},
		"apps=type:text/html":              {simulator.Apps, simulator.Fault{ContentType: "text/html"}},
		"userinfo=body:<text>":             {simulator.UserInfo, simulator.Fault{Body: "<text>"}},
		"userinfo=500;body: a;times:3=b:c": {simulator.UserInfo, simulator.Fault{Status: 500, Body: " a;times:3=b:c"}},
		`token=400;body:{"error":"x"}`:     {simulator.Token, simulator.Fault{Status: 400, Body: `{"error":"x"}`}},
		"revoke=429;header:Retry-After: 5": {simulator.Revoke, simulator.Fault{Status: 429, Header: http.Header{"Retry-After": {"5"}}}},
		"authorize=header:X-A: b:c":        {simulator.Authorize, simulator.Fault{Header: http.Header{"X-A": {"b:c"}}}},
	} {
		endpoint, fault, err := simulator.ParseFault(text)
		if err != nil || endpoint != want.endpoint || !reflect.DeepEqual(fault, want.fault) {
			t.Errorf("%s: %s %+v, error %v", text, endpoint, fault, err)
		}
	}
}

func TestParseFaultExplainsErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "want endpoint=fault",
		"token":                        "want endpoint=fault",
		"tokens=503":                   `unknown endpoint "tokens"`,
		"=503":                         `unknown endpoint ""`,
		"token=":                       "an empty part",
		"token=503;":                   "an empty part",
		"token=99":                     "200 to 599",
		"token=600":                    "200 to 599",
		"token=status:abc":             "200 to 599",
		"token=503:x":                  `unknown word "503"`,
		"token=broken":                 `unknown word "broken"`,
		"token=slow:2s":                `unknown word "slow"`,
		"token=cut:now":                "cut takes no value",
		"token=delay":                  "delay: is not a positive duration",
		"token=delay:2":                "write for example delay:2s",
		"token=late:-1s":               "late:-1s is not a positive duration",
		"token=500;times:0":            "times:0",
		"token=500;times:many":         "times:many",
		"token=500;probability:0":      "probability:0",
		"token=500;probability:1.5":    "probability:1.5",
		"token=500;probability:NaN":    "probability:NaN",
		"token=body:":                  "body: is empty",
		"token=type:":                  "not a media type",
		"token=header:x":               "write header:Name: value",
		"token=header:a b: c":          "write header:Name: value",
		"token=cut;hang":               "hang and cut cannot be combined",
		"token=half;endless":           "half and endless cannot be combined",
		"token=after-work":             "after-work needs a failure",
		"token=delay:1s;after-work":    "after-work needs a failure",
		"userinfo=200;body:x;times":    "", // the body takes the rest
		"userinfo=times:2;body:times:": "",
	} {
		_, _, err := simulator.ParseFault(text)
		if (err == nil) != (want == "") {
			t.Errorf("%q: error %v", text, err)
			continue
		}
		if err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), text)) {
			t.Errorf("%q: error %q lacks %q", text, err, want)
		}
	}
}

func TestEveryEndpointCanBeNamedInAFault(t *testing.T) {
	for _, endpoint := range simulator.Endpoints() {
		if got, _, err := simulator.ParseFault(string(endpoint) + "=500"); err != nil || got != endpoint {
			t.Errorf("%s: %s, %v", endpoint, got, err)
		}
	}
}

// FuzzParseFault checks that every accepted fault can be served. A status out of
// range would be a panic in the server.
func FuzzParseFault(f *testing.F) {
	for _, seed := range []string{"token=503", "userinfo=delay:2s;times:3", "token=400;body:{}", "x=header:A: b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, fault, err := simulator.ParseFault(text)
		if err != nil {
			return
		}
		if fault.Status != 0 && (fault.Status < 200 || fault.Status > 599) {
			t.Errorf("%q: status %d", text, fault.Status)
		}
		if fault.Times < 0 || fault.Delay < 0 || fault.Probability < 0 || fault.Probability > 1 {
			t.Errorf("%q: %+v", text, fault)
		}
	})
}
