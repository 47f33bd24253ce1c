package gatewaytest

import (
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// Patience is how long tests wait for what has to happen. It is far longer than a busy
// machine takes.
const Patience = 30 * time.Second

// Eventually waits until ok returns true. It is for what no response shows.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// WriteCertificate writes the certificate of net/http/httptest, which is for 127.0.0.1,
// and its key, and gives the names of the two files as `tls` takes them.
func WriteCertificate(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	server.Close()
	certificate := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	var names []string
	for _, block := range []pem.Block{{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}, {Type: "PRIVATE KEY", Bytes: key}} {
		name := filepath.Join(folder, strings.ReplaceAll(block.Type, " ", "-")+".pem")
		if err := os.WriteFile(name, pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}
