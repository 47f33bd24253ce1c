package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"

	"github.com/caddy-tollgate/tollgate/simulator"
)

// One refresh in refusedOf gets 503, and the provider does nothing. One in cutOf is done by the
// provider, and its response is cut off.
const (
	refusedOf = 20
	cutOf     = 200
)

// provider is the simulated provider behind a handler that fails now and then, and that keeps
// its own record of every refresh token.
type provider struct {
	*simulator.Provider
	faults atomic.Bool

	mu     sync.Mutex // guards what follows
	grants []*grant
	tokens map[string]*refreshToken
	counts account
}

// account counts the refreshes by their results.
type account struct {
	asked        int // while there are faults
	good         int // done and delivered
	refused      int
	cut          int // done, and the response cut off
	doubleSpends int
	resent       int // sent again after the response was cut off
}

// grant is one sign-in with all its refreshes.
type grant struct {
	cut int // responses that were cut off
}

type refreshToken struct {
	grant *grant
	spent bool
	cut   bool // the response to it was cut off
}

func newProvider(options simulator.Options) *provider {
	return &provider{Provider: simulator.New(options), tokens: make(map[string]*refreshToken)}
}

func (p *provider) beginFaults() { p.faults.Store(true) }
func (p *provider) endFaults()   { p.faults.Store(false) }

// ServeHTTP implements http.Handler.
func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != simulator.TokenPath {
		p.Provider.ServeHTTP(w, r)
		return
	}
	// The simulator reads the form again by itself, as strictly as always.
	refresh := peekRefreshToken(r)
	if refresh == "" {
		p.exchange(w, r)
		return
	}
	refuse, cut := p.take(refresh)
	if refuse {
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	answer := httptest.NewRecorder()
	p.Provider.ServeHTTP(answer, r)
	p.settle(refresh, answer, cut)
	if cut {
		hangUp(w)
		return
	}
	pass(w, answer)
}

// take records that a refresh token was sent, and draws whether the refresh fails.
func (p *provider) take(refresh string) (refuse, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if token, ok := p.tokens[refresh]; ok && token.spent {
		if token.cut {
			p.counts.resent++
		} else {
			p.counts.doubleSpends++
		}
	}
	if !p.faults.Load() {
		return false, false
	}
	p.counts.asked++
	refuse = p.counts.asked%refusedOf == 0
	cut = !refuse && p.counts.asked%cutOf == 7
	if refuse {
		p.counts.refused++
	}
	return refuse, cut
}

// settle records the new refresh token of a grant.
func (p *provider) settle(refresh string, answer *httptest.ResponseRecorder, cut bool) {
	next := refreshTokenIn(answer)
	p.mu.Lock()
	defer p.mu.Unlock()
	token, known := p.tokens[refresh]
	if !known || next == "" {
		return
	}
	token.spent, token.cut = true, cut
	p.tokens[next] = &refreshToken{grant: token.grant}
	if cut {
		token.grant.cut++
		p.counts.cut++
	} else {
		p.counts.good++
	}
}

func (p *provider) exchange(w http.ResponseWriter, r *http.Request) {
	answer := httptest.NewRecorder()
	p.Provider.ServeHTTP(answer, r)
	if token := refreshTokenIn(answer); token != "" {
		p.mu.Lock()
		g := &grant{}
		p.grants = append(p.grants, g)
		p.tokens[token] = &refreshToken{grant: g}
		p.mu.Unlock()
	}
	pass(w, answer)
}

// lastGrant returns the grant of the newest sign-in. There is one sign-in at a time.
func (p *provider) lastGrant() *grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.grants[len(p.grants)-1]
}

func (p *provider) wasCut(g *grant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return g.cut > 0
}

func (p *provider) account() account {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

func refreshTokenIn(answer *httptest.ResponseRecorder) string {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	if answer.Code != http.StatusOK || json.Unmarshal(answer.Body.Bytes(), &body) != nil {
		return ""
	}
	return body.RefreshToken
}

func pass(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

// hangUp closes the connection without a response.
func hangUp(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
}
