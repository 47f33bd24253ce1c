package command

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/internal/doctor"
	"github.com/caddy-tollgate/tollgate/internal/explain"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// explainFlags are the flags of the explain command.
type explainFlags struct {
	configFlags
	url, method        string
	headers            []string
	cookie, cookieFile string
	request            string
	remote             string
	asJSON             bool
}

func newExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain [--config <path> [--adapter <name>]] [--envfile <path>] --url <url> [--method <method>] [--header <name: value>] [--cookie-file <path>] [--json]",
		Short: "Explains what would be done with a request, and why",
		Long: `
Explains what tollgate would do with a request: which site and which rule decide,
how servers may read its path, whose session its cookie is, and which clock ends
that session. The session is opened with the secrets of the configuration, and read
from the session store if it is there. Tokens are not shown.

Nothing is sent to the provider or to the upstream, and nothing is changed. What a
directive before tollgate would answer itself is not part of the explanation.

The request is described with flags, or is a whole HTTP request in a file: as a
proxy received it, or as the developer tools of a browser copy it.
`,
		Example: `  $ caddy tollgate explain --url https://app.example.com/api/answers --header 'Accept: text/html'
  $ caddy tollgate explain --url https://app.example.com/ --cookie-file cookies.txt
  $ caddy tollgate explain --request - < request.txt`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runExplain(cmd, f)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.addTo(flags)
	flags.StringVar(&f.url, "url", "", "the full URL that the client asks for")
	flags.StringVar(&f.method, "method", http.MethodGet, "the method")
	flags.StringArrayVar(&f.headers, "header", nil, "a header of the request, as 'Name: value'; may be repeated")
	flags.StringVar(&f.cookie, "cookie", "", "the Cookie header; every user of this machine can see it here, so prefer --cookie-file")
	flags.StringVar(&f.cookieFile, "cookie-file", "", "a file with the Cookie header, or - for the standard input")
	flags.StringVar(&f.request, "request", "", "a file with the whole HTTP request, or - for the standard input")
	flags.StringVar(&f.remote, "remote", "127.0.0.1", "the address from which the request comes, for trusted_proxies")
	flags.BoolVar(&f.asJSON, "json", false, "print the explanation as JSON")
	return cmd
}

func runExplain(cmd *cobra.Command, f explainFlags) error {
	request, err := f.readRequest(cmd.InOrStdin())
	if err != nil {
		return err
	}
	text, err := f.load()
	if err != nil {
		return err
	}
	configuration, err := doctor.Provision(text)
	if err != nil {
		return err
	}
	defer configuration.Close()
	handler, arrived := receiverOf(configuration, request.WithContext(cmd.Context()))
	if handler == nil {
		return fmt.Errorf("no tollgate of this configuration receives %s: no site serves this host, or a matcher keeps the path away from tollgate", shownRequest(request))
	}
	explanation := handler.Explain(arrived)
	if f.asJSON {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "\t")
		return encoder.Encode(explanation)
	}
	return explanation.Print(cmd.OutOrStdout(), time.Now())
}

// shownRequest is the host and the path of a request. The query may contain a code.
func shownRequest(r *http.Request) string { return explain.Printable(r.Host + r.URL.EscapedPath()) }

// receiverOf finds the tollgate that receives a request, and the request as it is there. A
// server on the request's own port comes first.
func receiverOf(c *doctor.Configuration, r *http.Request) (explain.Explainer, *http.Request) {
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		port = origin.PortOf(&url.URL{Scheme: schemeOf(r), Host: r.Host})
	}
	for _, anyPort := range []bool{false, true} {
		for _, site := range c.Sites {
			handler, ok := site.Handler.(explain.Explainer)
			if !ok || !anyPort && !site.Place().ListensOn(port) {
				continue
			}
			if arrived, ok := site.Arrive(r.Clone(r.Context())); ok {
				return handler, arrived
			}
		}
	}
	return nil, nil
}

func schemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// readRequest reads the request from the flags, or from a file.
func (f *explainFlags) readRequest(in io.Reader) (*http.Request, error) {
	if f.request == "-" && f.cookieFile == "-" {
		return nil, errors.New("--request and --cookie-file cannot both read the standard input")
	}
	r, err := f.beginRequest(in)
	if err != nil {
		return nil, err
	}
	for _, line := range f.headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, errors.New("--header: write it as 'Name: value'")
		}
		r.Header.Add(textproto.TrimString(name), textproto.TrimString(value))
	}
	cookie := f.cookie
	if f.cookieFile != "" {
		text, err := readInput(f.cookieFile, in)
		if err != nil {
			return nil, fmt.Errorf("--cookie-file: %w", err)
		}
		cookie = strings.TrimSpace(string(text))
	}
	if cookie != "" {
		if name, value, ok := strings.Cut(cookie, ":"); ok && strings.EqualFold(name, "Cookie") {
			cookie = strings.TrimSpace(value)
		}
		r.Header.Add("Cookie", cookie)
	}
	r.RemoteAddr = net.JoinHostPort(f.remote, "1")
	return r, nil
}

// beginRequest makes a request of --request or of --url.
func (f *explainFlags) beginRequest(in io.Reader) (*http.Request, error) {
	var address *url.URL
	if f.url != "" {
		var err error
		if address, err = url.Parse(f.url); err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" {
			return nil, errors.New("--url: must be a full URL, such as https://app.example.com/page")
		}
	}
	switch {
	case f.request == "" && address == nil:
		return nil, errors.New("name the request with --url, or with --request")
	case f.request == "":
		return requestTo(address, f.method)
	}
	text, err := readInput(f.request, in)
	if err != nil {
		return nil, fmt.Errorf("--request: %w", err)
	}
	head, first := headOf(string(text))
	if err := checkHeaders(head, first); err != nil {
		return nil, fmt.Errorf("--request: %w", err)
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(asHTTP1(head))))
	if err != nil {
		// The error may quote the line with the cookies.
		return nil, errors.New("--request: this is not an HTTP request: it must begin with a line such as GET /page HTTP/1.1, and go on with headers such as Host: app.example.com")
	}
	r.Body = http.NoBody
	if address != nil {
		r.Host = address.Host
	}
	if address == nil || address.Scheme == "https" {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	}
	return r, nil
}

// headOf returns the lines of a request's head, and the number of the first one. Empty lines
// before it are left out.
func headOf(text string) (head []string, first int) {
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case line != "":
			head = append(head, line)
		case len(head) > 0:
			return head, first + 1 // the body follows
		default:
			first++
		}
	}
	return head, first + 1
}

// checkHeaders returns an error if a line of a head, whose first line has the number first, is
// not a whole header: developer tools may copy the name and the value of a header as two lines.
// net/http reads a continued header as one line, but RFC 9112 section 5.2 forbids clients to send
// one. The error does not show the line, which may have the cookies.
func checkHeaders(head []string, first int) error {
	hasMethod := slices.ContainsFunc(head, func(line string) bool { return strings.HasPrefix(line, ":method:") })
	for i, line := range head {
		name, value, isHeader := strings.Cut(strings.TrimPrefix(line, ":"), ":")
		switch isPseudo := strings.HasPrefix(line, ":"); {
		case i == 0 && !hasMethod: // the first line of HTTP/1.1
		case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"):
			return fmt.Errorf("line %d continues the header above it, which RFC 9112 section 5.2 forbids: write each header on one line, as 'Name: value'", first+i)
		case !isHeader, name == "", isPseudo && strings.TrimSpace(value) == "":
			return fmt.Errorf("line %d is not a whole header: write each header on one line, as 'Name: value'", first+i)
		}
	}
	return nil
}

// laterVersion matches the version in the first line of a request of HTTP/2 or HTTP/3.
var laterVersion = regexp.MustCompile(`HTTP/[23](\.0)?$`)

// asHTTP1 turns the head of a request into one of HTTP/1.1. The developer tools of a browser
// show a request of HTTP/2 with its version, or with pseudo headers such as `:path: /page`. A
// copied request may lack the empty line at its end.
func asHTTP1(head []string) string {
	lines, pseudo := []string{}, map[string]string{}
	for _, line := range head {
		if header, ok := strings.CutPrefix(line, ":"); ok {
			name, value, _ := strings.Cut(header, ":")
			pseudo[name] = strings.TrimSpace(value)
			continue
		}
		lines = append(lines, line)
	}
	method := pseudo["method"]
	if method == http.MethodConnect && pseudo["protocol"] == "websocket" { // RFC 8441
		method = http.MethodGet
		lines = append(lines, "Connection: Upgrade", "Upgrade: websocket")
	}
	if method != "" {
		lines = append([]string{method + " " + pseudo["path"] + " HTTP/1.1", "Host: " + pseudo["authority"]}, lines...)
	}
	if len(lines) > 0 {
		lines[0] = laterVersion.ReplaceAllString(lines[0], "HTTP/1.1")
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// requestTo makes a request for a URL, as a server reads it.
func requestTo(address *url.URL, method string) (*http.Request, error) {
	target := address.RequestURI()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: " + address.Host + "\r\n\r\n")))
	if err != nil {
		return nil, fmt.Errorf("--url, --method: %w", err)
	}
	if address.Scheme == "https" {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	}
	return r, nil
}

// maxInput limits what is read from a file.
const maxInput = 1 << 20

// readInput reads a file, or the standard input for -.
func readInput(path string, in io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(in, maxInput))
	}
	file, err := os.Open(path) //nolint:gosec // the person who runs this names the file
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	return io.ReadAll(io.LimitReader(file, maxInput))
}
