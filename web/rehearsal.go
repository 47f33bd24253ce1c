package web

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// rehearse renders the pages with the operator's files, once with all fields filled and
// once with all optional fields empty, and checks the result. So a mistake is found at the
// start, and not by the first user whose sign-in fails.
func (p *Pages) rehearse(own ownFiles) error {
	if len(own) == 0 {
		return nil
	}
	for _, page := range allPages {
		for i, d := range samples() {
			rendered, err := p.Render(page, d)
			if err != nil {
				return err
			}
			root, err := html.Parse(bytes.NewReader(rendered.Body))
			if err != nil {
				return fmt.Errorf("%s: %w", own.origin(page), err)
			}
			if err := p.allowed(own, page, root); err != nil {
				return err
			}
			if i == 0 && !leadsOn(page, root, d) {
				return fmt.Errorf("%s: %s", own.origin(page), waysOn[page])
			}
		}
	}
	return nil
}

// origin returns the file in which the operator finds a mistake of a page.
func (own ownFiles) origin(page Page) string {
	if _, ok := own[page.file()]; ok {
		return page.file()
	}
	return layoutFile
}

// samples are the data that the pages are rendered with. The first has all fields.
func samples() []Data {
	full := Data{
		Brand: "Example", Provider: "AIHubMix",
		StartURL: "/start", LogoutURL: "/logout", HomeURL: "/home", RetryURL: "/retry", TopupURL: "/topup",
		Balance: "0.30", Required: "0.50", RetryAfter: 5,
		SwitchURL: "/switch", SignedIn: true, User: "Alice",
		Budget: "5.00", Spent: "4.80", ResetsAt: time.Date(2030, time.January, 1, 0, 0, 0, 0, time.UTC),
		Popup: PopupMessage{OK: true, Nonce: "nonce", Origin: "https://app.example.com"},
	}
	all := []Data{full, {Popup: PopupMessage{Origin: full.Popup.Origin}}}
	for _, cause := range append(codes(), "") {
		d := full
		d.Cause, d.Balance, d.RetryAfter, d.SigningIn, d.SignedIn, d.User = cause, "", 1, true, false, ""
		d.Popup.OK, d.Popup.Error = false, cause
		all = append(all, d)
	}
	return all
}

// waysOn has an error for each page that is useless without a certain element.
var waysOn = map[Page]string{
	SignIn: "has no link to {{.StartURL}}: nobody could sign in",
	Logout: "has no form that posts to {{.LogoutURL}}: nobody could sign out",
	Popup:  `needs id="login", data-ok, data-nonce, data-error and data-origin on one element, and <script>{{.Script}}</script> after it: the page that opened the window would wait for ever`,
}

func leadsOn(page Page, root *html.Node, d Data) bool {
	if waysOn[page] == "" {
		return true
	}
	hasMessage := false
	for n := range root.Descendants() {
		at := attributes(n)
		switch {
		case page == SignIn && n.Data == "a" && at["href"] == d.StartURL,
			page == Logout && n.Data == "form" && at["action"] == d.LogoutURL && strings.EqualFold(at["method"], "post"),
			page == Popup && n.Data == "script" && hasMessage:
			return true
		case at["id"] == "login":
			hasMessage = at["data-ok"] == "true" && at["data-nonce"] == d.Popup.Nonce && at["data-origin"] == d.Popup.Origin
			if _, ok := at["data-error"]; !ok {
				hasMessage = false
			}
		}
	}
	return false
}

func attributes(n *html.Node) map[string]string {
	at := map[string]string{}
	for _, a := range n.Attr {
		at[a.Key] = a.Val
	}
	return at
}

// allowed returns an error if the page has an element that its Content-Security-Policy
// blocks. A browser would leave the element out silently.
func (p *Pages) allowed(own ownFiles, page Page, root *html.Node) error {
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		blocked, advice := p.blocked(page, n)
		if blocked != "" {
			return fmt.Errorf("%s: <%s> %s", own.find(page, "<"+n.Data, blocked), n.Data, advice)
		}
	}
	return nil
}

// blocked returns the part of an element that would be blocked, as it is in the source, and
// what the operator should do instead. Both are empty if nothing would be blocked.
func (p *Pages) blocked(page Page, n *html.Node) (needle, advice string) {
	for _, a := range n.Attr {
		switch name := strings.ToLower(a.Key); {
		case name == "style":
			return name + "=", "has a style attribute, which browsers ignore: write the style into style.css"
		case strings.HasPrefix(name, "on"):
			return name + "=", "has the attribute " + name + ", which browsers ignore: pages may not have scripts of their own"
		case (name == "src" || name == "srcset" || name == "poster" || name == "data" || name == "background") && !strings.HasPrefix(a.Val, "data:image/"):
			return name + "=", "loads a file, which browsers block: pages load nothing; use the option logo, or a data: URL"
		case name == "href" && n.Data == "link" && !strings.HasPrefix(a.Val, "data:"):
			return name + "=", "loads a file, which browsers block: pages load nothing; write styles into style.css"
		}
	}
	switch {
	case n.Data == "style" && textOf(n) != p.style:
		return "<style", "is not {{.Style}}, and browsers ignore it: write the style into style.css"
	case n.Data == "script" && textOf(n) != scripts[page]:
		return "<script", "is not {{.Script}}, the page's own, and browsers block it: pages may not have scripts of their own"
	case n.Data == "iframe" || n.Data == "object" || n.Data == "embed" || n.Data == "base":
		return "<" + n.Data, "is not allowed on these pages, and browsers block it: remove it"
	}
	return "", ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

// find returns the file and the line in which the operator wrote the element.
func (own ownFiles) find(page Page, element, needle string) string {
	for _, name := range []string{page.file(), layoutFile} {
		source := strings.ToLower(own[name])
		for at := 0; ; {
			i := strings.Index(source[at:], element)
			if i < 0 {
				break
			}
			at += i
			end := strings.IndexByte(source[at:], '>')
			if end < 0 {
				end = len(source) - at - 1
			}
			if strings.Contains(source[at:at+end+1], needle) {
				return fmt.Sprintf("%s:%d", name, lineAt(source, at))
			}
			at += len(element)
		}
	}
	return own.origin(page)
}
