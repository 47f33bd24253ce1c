package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// Configuration is a provisioned configuration that serves nothing. The caller must close it.
type Configuration struct {
	Sites []*Site
	// raw is the configuration that was provisioned.
	raw      document
	cleanups []caddy.CleanerUpper
}

// Provision provisions a configuration in Caddy's JSON, as `caddy validate` does, and returns
// its sites. It opens no log files, listens nowhere, and manages no certificates: loading
// these parts of a configuration can write files.
func Provision(config []byte) (*Configuration, error) {
	raw, err := harmless(config)
	if err != nil {
		return nil, err
	}
	app, err := raw.provision()
	if err != nil {
		return nil, err
	}
	c := &Configuration{raw: raw.document}
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		c.addSites(app.Servers[name], raw.servers[name])
	}
	for i, site := range c.Sites {
		site.others = slices.Delete(slices.Clone(c.Sites), i, i+1)
	}
	return c, nil
}

// Close releases what the sites hold.
func (c *Configuration) Close() {
	for _, h := range c.cleanups {
		_ = h.Cleanup()
	}
}

// modulesAround matches what Caddy writes before the error of a module: all modules around it.
var modulesAround = regexp.MustCompile(`(?s)^.*\b(?:provision|loading module)\s'?((?:\w+\.)+\w+)'?: `)

// Cause is the text of an error of Provision without the modules around the one that failed.
// It begins with the option of tollgate, or with the other module that failed.
func Cause(text string) string {
	found := modulesAround.FindStringSubmatchIndex(text)
	if found == nil {
		return text
	}
	module, rest := text[found[2]:found[3]], text[found[1]:]
	return strings.TrimPrefix(module, "http.handlers.") + ": " + rest
}

// addSites adds the sites of one server.
func (c *Configuration) addSites(s *caddyhttp.Server, described *server) {
	routes := slices.Clone(s.Routes)
	for _, name := range slices.Sorted(maps.Keys(s.NamedRoutes)) {
		routes = append(routes, *s.NamedRoutes[name])
	}
	for _, p := range patientsIn(routes) {
		site := p.Examine()
		site.server = described
		c.Sites = append(c.Sites, site)
		if h, ok := p.(caddy.CleanerUpper); ok {
			c.cleanups = append(c.cleanups, h)
		}
	}
}

// patientsIn returns the handlers of tollgate in routes, in their order.
func patientsIn(routes caddyhttp.RouteList) (found []Patient) {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case Patient:
				found = append(found, h)
			case *caddyhttp.Subroute:
				found = append(found, patientsIn(h.Routes)...)
			}
		}
	}
	return found
}

// trimmed is a configuration without the parts that do something when they are loaded, and
// what these parts said about each server.
type trimmed struct {
	document document
	servers  map[string]*server
}

// harmless removes from a configuration what does more than `caddy validate` should do.
func harmless(config []byte) (*trimmed, error) {
	t := &trimmed{document{}, map[string]*server{}}
	if err := json.Unmarshal(config, &t.document); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	delete(t.document, "admin")
	t.document["logging"] = document{"logs": document{"default": document{"writer": document{"output": "discard"}}}}
	apps, _ := t.document["apps"].(document)
	delete(apps, "tls") // asks for certificates
	delete(apps, "pki") // makes a certificate authority
	httpApp, _ := apps["http"].(document)
	servers, _ := httpApp["servers"].(document)
	for name, value := range servers {
		s, ok := value.(document)
		if !ok {
			continue
		}
		t.servers[name] = &server{name: name, HasTLS: servesTLS(s, httpApp), TrustedProxies: trustedProxies(s)}
		s["automatic_https"] = document{"disable": true}
		delete(s, "tls_connection_policies")
		delete(s, "logs")
		eachHandler(s, func(handler document) {
			if handler["handler"] == "tollgate" {
				delete(storeOf(handler), "from_cookies") // reading a session would move it into the store
			}
		})
		withoutPKI(s)
	}
	return t, nil
}

// withoutPKI removes what needs the app pki: trust in Caddy's own authority, and the handler
// that issues certificates. No check connects to the operator's upstreams.
func withoutPKI(server document) {
	eachObject(server, func(object document) {
		if ca, ok := object["ca"].(document); ok && strings.HasPrefix(fmt.Sprint(ca["provider"]), "pki_") {
			delete(object, "ca")
		}
		if object["handler"] == "acme_server" {
			clear(object)
			object["handler"] = "static_response"
		}
	})
}

// storeOf is the session store in the JSON of a tollgate, or nil.
func storeOf(handler document) document {
	s, _ := handler["session"].(document)
	store, _ := s["store"].(document)
	return store
}

// provision loads the configuration, and starts nothing.
func (t *trimmed) provision() (*caddyhttp.App, error) {
	text, err := json.Marshal(t.document)
	if err != nil {
		return nil, err
	}
	var config *caddy.Config
	if err := caddy.StrictUnmarshalJSON(text, &config); err != nil {
		return nil, fmt.Errorf("decoding the configuration: %w", err)
	}
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		return nil, err
	}
	app, err := ctx.App("http")
	if err != nil {
		return nil, err
	}
	return app.(*caddyhttp.App), nil
}

// servesTLS reports whether a server speaks TLS: it has a policy for it, or Caddy's automatic
// HTTPS gives it one, because a route names a host.
func servesTLS(s, httpApp document) bool {
	if policies, ok := s["tls_connection_policies"].([]any); ok && len(policies) > 0 {
		return true
	}
	automatic, _ := s["automatic_https"].(document)
	if automatic["disable"] == true || onlyPort(s, httpPort(httpApp)) {
		return false
	}
	skip, _ := automatic["skip"].([]any)
	for _, host := range hostsIn(s["routes"]) {
		if !slices.Contains(skip, any(host)) {
			return true
		}
	}
	return false
}

// httpPort is the port on which Caddy speaks plain HTTP.
func httpPort(httpApp document) string {
	if port, ok := httpApp["http_port"].(float64); ok && port > 0 {
		return strconv.Itoa(int(port))
	}
	return strconv.Itoa(caddyhttp.DefaultHTTPPort)
}

// onlyPort reports whether a server listens on one port alone.
func onlyPort(s document, port string) bool {
	listen, _ := s["listen"].([]any)
	for _, address := range listen {
		text, _ := address.(string)
		parsed, err := caddy.ParseNetworkAddress(text)
		if err != nil || parsed.PortRangeSize() != 1 || strconv.Itoa(int(parsed.StartPort)) != port {
			return false
		}
	}
	return len(listen) > 0
}

// hostsIn lists the hosts that the matchers of routes name.
func hostsIn(routes any) (hosts []string) {
	list, _ := routes.([]any)
	for _, route := range list {
		r, _ := route.(document)
		sets, _ := r["match"].([]any)
		for _, set := range sets {
			matchers, _ := set.(document)
			hosts = append(hosts, texts(matchers["host"])...)
		}
	}
	return hosts
}

// trustedProxies are the address ranges that Caddy's server trusts, if they are written in
// the configuration.
func trustedProxies(s document) []string {
	source, _ := s["trusted_proxies"].(document)
	if source == nil {
		return nil
	}
	if ranges := texts(source["ranges"]); len(ranges) > 0 {
		return ranges
	}
	return []string{fmt.Sprint(source["source"])}
}

// texts gives the texts of a JSON list.
func texts(value any) (found []string) {
	list, _ := value.([]any)
	for _, each := range list {
		if text, ok := each.(string); ok {
			found = append(found, text)
		}
	}
	return found
}

// Named returns the sites with this host, origin or redirect_uri. An empty name selects all.
func (c *Configuration) Named(name string) []*Site {
	if name == "" {
		return c.Sites
	}
	var named []*Site
	for _, site := range c.Sites {
		key := origin.HostKey(name)
		if name == site.Origin || name == site.RedirectURI || key == origin.HostnameOf(site.Origin) || key == origin.HostOf(site.Origin) ||
			slices.ContainsFunc(site.Place().Hosts, func(host string) bool { return origin.HostKey(host) == key }) {
			named = append(named, site)
		}
	}
	return named
}
