package tollgate

import (
	"strings"
	"testing"
)

func TestNoErrorRepeatsThePasswordInAnAddress(t *testing.T) {
	const password = "hunter2"
	for _, block := range []string{
		minimalBlock + "session {\nstore redis {\naddress redis://:hunter2@host\n}\n}",
		minimalBlock + "session {\nstore redis {\naddress user:hunter2@host:6379:1\n}\n}",
		strings.Replace(minimalBlock, "client_id id", "client_id id\nbase_url ftp://user:hunter2@x.example", 1),
		strings.Replace(minimalBlock, "client_id id", "client_id id\ntoken_endpoint user:hunter2@x.example", 1),
		strings.Replace(minimalBlock, "client_id id", "client_id id\nbase_url http://user:hunter2@x.example", 1),
		strings.Replace(minimalBlock, "https://app", "ftp://user:hunter2@app", 1),
		strings.Replace(minimalBlock, "https://app", "https://user:hunter2@app", 1),
		strings.Replace(minimalBlock, "https://app", "user:hunter2@app", 1),
	} {
		if _, err := adaptHandler(block); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%s\n  got %v", block, err)
		}
	}
}
