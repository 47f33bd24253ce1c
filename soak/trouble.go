package main

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// The intervals and durations of the failures, which happen in turn.
const (
	reloadEvery  = 10 * time.Second
	restartEvery = 15 * time.Second
	killEvery    = 25 * time.Second
	// awayFor is how long Redis is down.
	awayFor = time.Second
)

// events counts the failures that were caused.
type events struct {
	reloads, restarts, kills atomic.Int64
	fault                    atomic.Pointer[error]
}

// trouble reloads, restarts and kills processes until it is stopped.
func (s *site) trouble(stop chan struct{}) {
	reload, restart, kill := time.NewTicker(reloadEvery), time.NewTicker(restartEvery), time.NewTicker(killEvery)
	defer reload.Stop()
	defer restart.Stop()
	defer kill.Stop()
	for turn := 0; ; turn++ {
		g := s.gateways[turn%len(s.gateways)]
		var err error
		select {
		case <-stop:
			return
		case <-reload.C:
			s.events.reloads.Add(1)
			s.logf("reloading gateway %d", g.number)
			err = g.reload()
		case <-restart.C:
			s.events.restarts.Add(1)
			s.logf("restarting gateway %d", g.number)
			err = errors.Join(g.stop(), g.start())
		case <-kill.C:
			err = s.killRedis()
		}
		if err != nil {
			s.logf("%v", err)
			s.events.fault.Store(&err)
		}
	}
}

func (s *site) killRedis() error {
	if s.redis == nil {
		return nil
	}
	s.events.kills.Add(1)
	s.logf("killing Redis")
	err := s.redis.kill()
	time.Sleep(awayFor)
	return errors.Join(err, s.redis.start())
}

// settle ends the failures, and waits until each user whose session was not lost is served
// again.
func (s *site) settle(people []*person) error {
	s.provider.endFaults()
	time.Sleep(4*providerTimeout + accessLifetime)
	for _, p := range people {
		if p.lost.Load() {
			continue
		}
		err := waitUntil(func() bool {
			before := s.answers.ok.Load()
			s.use(p)
			return s.answers.ok.Load() > before || p.lost.Load()
		}, p.name+" is served again")
		if err != nil {
			return s.explain(err)
		}
	}
	return nil
}

// report prints the figures.
func (s *site) report(w io.Writer, took time.Duration) {
	lostCut := s.answers.lostCut.Load()
	p := s.provider.account()
	fmt.Fprintf(w, `%d gateways, sessions in %s, %d people, %v

| | |
|---|---|
| refreshes | %d |
| refresh tokens spent twice | %d |
| sessions lost | %d |
| sessions lost whose tokens the provider never delivered | %d, of %d answers cut off |
| refresh tokens sent again after a cut answer, when the access token was over | %d |
| refreshes that the provider refused with 503 | %d |
| requests answered | %d |
| answered with 503 while a store or gateway was away | %d |
| answered with another user's identity | %d |
| repeated because a gateway was away | %d |
| Redis killed and started again | %d |
| configurations reloaded | %d |
| gateways stopped with SIGTERM and started again | %d |
`, s.replicas, s.store, s.sessions, took.Round(time.Second),
		p.good, p.doubleSpends, s.answers.lost.Load()-lostCut, lostCut, p.cut, p.resent, p.refused,
		s.answers.ok.Load(), s.answers.unavailable.Load(), s.answers.wrong.Load(), s.answers.repeated.Load(),
		s.events.kills.Load(), s.events.reloads.Load(), s.events.restarts.Load())
}

func (s *site) verdict() error {
	var faults []error
	if lost := s.answers.lost.Load() - s.answers.lostCut.Load(); lost > 0 {
		faults = append(faults, fmt.Errorf("%d sessions were lost", lost))
	}
	if n := s.provider.account().doubleSpends; n > 0 {
		faults = append(faults, fmt.Errorf("%d refresh tokens were spent twice", n))
	}
	if n := s.answers.wrong.Load(); n > 0 {
		faults = append(faults, fmt.Errorf("%d responses contained another user's identity", n))
	}
	if fault := s.events.fault.Load(); fault != nil {
		faults = append(faults, *fault)
	}
	return errors.Join(faults...)
}
