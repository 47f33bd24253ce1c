package metrics

import "sync"

// Source is a site, whose running requests are counted when the metrics are read.
type Source interface {
	// Holds returns how many requests hold an amount.
	Holds() int
	// Streams returns how many streams of signed-in users are open.
	Streams() int
}

// gauges are the sites of this process.
type gauges struct {
	mu      sync.Mutex // guards sources
	sources map[Source]struct{}
}

// Watch includes a site in the gauges until stop is called.
func (s *Set) Watch(source Source) (stop func()) {
	g := &s.gauges
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sources == nil {
		g.sources = make(map[Source]struct{})
	}
	g.sources[source] = struct{}{}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.sources, source)
	}
}

// sum returns the sum of a number over all sites.
func (g *gauges) sum(of func(Source) int) float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	total := 0
	for source := range g.sources {
		total += of(source)
	}
	return float64(total)
}
