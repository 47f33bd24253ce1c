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

// readBody returns the whole body, and makes it readable again. ServeHTTP has
// limited and buffered it, so that this is cheap and cannot block.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}

// readForm returns the form in the body. Unlike Request.ParseForm it does not
// add the query, refuses other content types, and reports malformed escapes at
// every call.
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
// may occur twice, and none may be in the URL, because logs contain URLs.
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

// repeated returns the name of a parameter that occurs more than once. Of
// several it returns the first in the alphabet, so that messages do not vary.
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
