package simulator

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
)

// readBody returns the whole body and leaves it readable again. ServeHTTP
// has bounded and buffered it, so this costs nothing and cannot block.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}

// readForm returns the form in the body. Unlike Request.ParseForm it never
// mixes in the query, it refuses other content types, and it reports broken
// escapes each time it is asked.
func readForm(r *http.Request) (url.Values, error) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return nil, fmt.Errorf("the content type must be application/x-www-form-urlencoded")
	}
	body, err := readBody(r)
	if err != nil {
		return nil, fmt.Errorf("reading form: %w", err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, fmt.Errorf("the form is malformed")
	}
	return form, nil
}

// oauthForm is readForm with the rules of RFC 6749 section 3.2: no parameter
// twice, and nothing in the URL, where logs would keep the secrets.
func oauthForm(r *http.Request) (url.Values, error) {
	if r.URL.RawQuery != "" {
		return nil, invalidRequest("parameters belong in the body, not in the URL")
	}
	form, err := readForm(r)
	if err != nil {
		return nil, invalidRequest(err.Error())
	}
	if name, twice := repeated(form); twice {
		return nil, invalidRequest(name + " is given more than once")
	}
	return form, nil
}

// repeated returns the name of a parameter that stands there twice; of
// several the first in the alphabet, so that messages hold still.
func repeated(values url.Values) (string, bool) {
	var names []string
	for name, list := range values {
		if len(list) > 1 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", false
	}
	return slices.Min(names), true
}
