package doctor

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// checkUpstream sends requests through a copy of the site's own routes, inside this process. Its
// upstreams are replaced with one of doctor's own, which writes down what it receives. The
// requests have forged identity headers, and are sent with and without a session.
func checkUpstream(ctx context.Context, e *examination) []Finding {
	if len(e.configuration.reverseProxies(e.server.name)) == 0 {
		return ok("no reverse_proxy in this site: no upstream receives headers")
	}
	copied, err := newRehearsal(e)
	if err != nil {
		return warn("not checked: the site's routes cannot be served for a test: "+err.Error(), "send a request with a forged X-User-Id yourself, and look at what the upstream receives")
	}
	defer copied.close()
	j := &judgement{copied: copied, protected: map[string]bool{}}
	for _, path := range copied.paths {
		for _, signedIn := range []bool{true, false} {
			if finding := j.try(ctx, path, signedIn); finding != nil {
				return finding
			}
		}
	}
	return j.conclude()
}

// judgement says what the requests of a rehearsal mean.
type judgement struct {
	copied  *rehearsal
	reached int // requests that reached an upstream
	// protected are the upstreams that requests reached through tollgate, and bypasses are the
	// requests that reached one in another way.
	protected map[string]bool
	bypasses  []bypass
}

// bypass is a request with a forged header that reached an upstream without passing tollgate.
type bypass struct{ path, header, upstream string }

// try sends one request, and judges what the upstream received. Returns nil if the next request
// can follow.
func (j *judgement) try(ctx context.Context, path string, signedIn bool) []Finding {
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil // no path that a client can send
	}
	received, panics := j.copied.send(ctx, u, signedIn)
	switch {
	case panics:
		return warn(fmt.Sprintf("not checked: a handler of this site panics at a request for %s", path),
			"send the request to the site, and look at its log; then send one with a forged X-User-Id, and look at what the upstream receives")
	case received == nil:
		return nil
	}
	return j.judge(path, signedIn, received.Header)
}

// judge judges the header that the upstream received with a request for path.
func (j *judgement) judge(path string, signedIn bool, received http.Header) []Finding {
	j.reached++
	e := j.copied.e
	upstream, passes := received.Get(originalUpstream), e.isReached(e.probeHost(), path)
	if passes {
		j.protected[upstream] = true
	}
	for _, name := range slices.Sorted(maps.Keys(j.copied.forged)) {
		if slices.Contains(received[name], forged) {
			if !passes {
				j.bypasses = append(j.bypasses, bypass{path, name, upstream})
				return nil
			}
			return fail(fmt.Sprintf("a request for %s with a forged %s reached the upstream with it: tollgate does not run before reverse_proxy there, so nothing is protected", path, name),
				"remove `order tollgate …` from the global options; in a `route` block, write tollgate above reverse_proxy")
		}
	}
	if signedIn && strings.Contains(received.Get("Cookie"), e.Cookies.Name+"=") {
		return fail(fmt.Sprintf("the upstream receives the session cookie with a request for %s: tollgate does not run before reverse_proxy there", path),
			"remove `order tollgate …` from the global options; in a `route` block, write tollgate above reverse_proxy")
	}
	return nil
}

// conclude reports what all requests together mean.
func (j *judgement) conclude() []Finding {
	switch {
	case len(j.bypasses) > 0:
		return j.judgeBypasses()
	case j.reached == 0:
		return warn("not checked: no request reached a reverse_proxy of this site", "send a request with a forged X-User-Id yourself, and look at what the upstream receives")
	default:
		return ok("forged identity headers are removed: %s reached the upstream without them", counted(j.reached, "request"))
	}
}

// judgeBypasses reports a path that does not come to tollgate. It is a failure if the path leads
// to an upstream that tollgate protects on other paths: then it leads around tollgate. Otherwise
// it may be another application that shares the host.
func (j *judgement) judgeBypasses() []Finding {
	first := j.bypasses[0]
	for _, b := range j.bypasses {
		if j.protected[b.upstream] || len(j.protected) == 0 {
			return fail(fmt.Sprintf("a request for %s does not come to tollgate, and reaches the upstream %s with a forged %s: a `handle` or `route` block keeps tollgate away from it", b.path, b.upstream, b.header),
				"move tollgate out of its block to the top of the site, so that every request comes to it; list open paths in `public`")
		}
	}
	return warn(fmt.Sprintf("a request for %s does not come to tollgate, and reaches the upstream %s with a forged %s", first.path, first.upstream, first.header),
		"all is well if that upstream is another application, which does not use the identity headers; otherwise move tollgate out of its block to the top of the site")
}
