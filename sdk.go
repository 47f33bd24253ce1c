package tollgate

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"

	"github.com/caddy-tollgate/tollgate/web"
)

// newSDK makes the script that pages of the application load, with the paths of this
// site's endpoints in it.
func (s *settings) newSDK() (*web.SDK, error) {
	return web.NewSDK(web.Endpoints{
		Start:    s.endpoints["start"],
		Userinfo: s.endpoints["userinfo"],
		Refresh:  s.endpoints["refresh"],
		Topup:    s.topupURL(),
		Logout:   s.endpoints["logout"],
	})
}

// serveSDK answers everybody with the same bytes. Pages of other sites are not meant
// to load it: it would ask at their own origin.
func (h *Handler) serveSDK(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	writeOwnHeaders(header)
	header.Set("Content-Type", "text/javascript; charset=utf-8")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Vary", "Accept-Encoding")
	body := h.sdk.Plain
	if slices.Contains(encode.AcceptedEncodings(r, []string{"gzip"}), "gzip") {
		// Here and not by Caddy's encode, which stands behind us.
		header.Set("Content-Encoding", "gzip")
		body = h.sdk.Gzipped
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		w.Write(body) // a client that went away is nobody's error
	}
	return nil
}
