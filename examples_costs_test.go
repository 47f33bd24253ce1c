package tollgate_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// TestExamplesOfCosts runs what docs/spending.md tells application authors, in each
// language.
func TestExamplesOfCosts(t *testing.T) {
	manual := manualtest.ReadFile(t, "docs/spending.md")
	for file, c := range map[string]struct {
		run         []string
		hasTrailers bool
	}{
		"main.go": {nil, true}, // compiled first
		"app.mjs": {[]string{"node"}, true},
		"app.py":  {[]string{"python3"}, false},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			path := "examples/costs/" + file
			if !strings.Contains(manual, "```"+fenceOf(file)+"\n"+manualtest.ReadFile(t, path)+"```") {
				t.Errorf("docs/spending.md does not contain the text of %s", path)
			}
			sample := "http://" + startSample(t, path, c.run)
			body, response := getWhole(t, sample+"/answer")
			if body != "Forty-two is the answer\n" || response.Trailer != nil {
				t.Errorf("the answer is %q, its trailers are %v", body, response.Trailer)
			}
			wantCost(t, response.Header)
			if !c.hasTrailers {
				return
			}
			body, response = getWhole(t, sample+"/stream")
			if response.Header.Get("Content-Type") != "text/event-stream" || body != "data: Forty-two\n\ndata: is\n\ndata: the\n\ndata: answer\n\n" {
				t.Errorf("the stream is %q: %v", body, response.Header)
			}
			if response.Header["Tollgate-Cost"] != nil {
				t.Errorf("the stream has its cost in the header: %v", response.Header)
			}
			wantCost(t, response.Trailer)
		})
	}
}

// getWhole reads a response to its end, where its trailers are.
func getWhole(t *testing.T, url string) (string, *http.Response) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, error %v", url, response.StatusCode, err)
	}
	return string(body), response
}

// wantCost reads the cost as the gateway does: four words at 0.0002.
func wantCost(t *testing.T, header http.Header) {
	t.Helper()
	_, want, _ := spending.Verdict([]string{"0.0008"}, http.StatusOK)
	word, got, err := spending.Verdict(header.Values("Tollgate-Cost"), http.StatusOK)
	if err != nil || word != spending.Costs || got != want {
		t.Errorf("the cost is %q (error %v), want 0.0008", header.Values("Tollgate-Cost"), err)
	}
}
