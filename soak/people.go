package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// person is one browser with one session at a time.
type person struct {
	id     string
	name   string
	client *http.Client
	grant  *grant
	lost   atomic.Bool // the session was lost, and the next sign-in is not done yet
}

// answers counts the responses by kind.
type answers struct {
	ok, unavailable, repeated, wrong atomic.Int64
	// lost counts the lost sessions. lostCut counts those of them whose tokens the provider
	// did not deliver, so that no gateway could have kept them.
	lost, lostCut atomic.Int64
}

func (s *site) signInAll() ([]*person, error) {
	var people []*person
	for i := range s.sessions {
		jar, err := cookiejar.New(nil)
		if err != nil {
			return nil, err
		}
		p := &person{
			id: strconv.Itoa(1000 + i), name: fmt.Sprintf("person%d", i),
			client: &http.Client{
				Jar: jar, Timeout: 40 * time.Second,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
		}
		if err := s.signIn(p); err != nil {
			return nil, s.explain(err)
		}
		people = append(people, p)
	}
	return people, nil
}

// signIn signs the user in at the first gateway, which has the callback.
func (s *site) signIn(p *person) error {
	s.signing.Lock()
	defer s.signing.Unlock()
	start, err := p.visit(s.gateways[0].url + "/oauth/start")
	if err != nil {
		return err
	}
	authorize, err := withHint(start.Header.Get("Location"), p.name)
	if err != nil {
		return err
	}
	back, err := p.visit(authorize)
	if err != nil {
		return err
	}
	done, err := p.visit(back.Header.Get("Location"))
	if err != nil {
		return err
	}
	if done.StatusCode != http.StatusSeeOther {
		return fmt.Errorf("signing %s in: the callback answered %s", p.name, done.Status)
	}
	p.grant = s.provider.lastGrant()
	p.lost.Store(false)
	return nil
}

// visit sends the request of a page navigation.
func (p *person) visit(target string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	res.Body.Close()
	return res, nil
}

// useUntilDone runs all users until there were enough refreshes, while things fail. It
// returns false if the time limit is over before that.
func (s *site) useUntilDone(people []*person) bool {
	stop := make(chan struct{})
	var working sync.WaitGroup
	for _, p := range people {
		working.Go(func() { s.work(p, stop) })
	}
	working.Go(func() { s.trouble(stop) })
	deadline := time.Now().Add(s.limit)
	for s.provider.account().good < s.refreshes && time.Now().Before(deadline) {
		time.Sleep(200 * time.Millisecond)
	}
	close(stop)
	working.Wait()
	return s.provider.account().good >= s.refreshes
}

// work sends a few requests at once, to any gateways, and pauses. A user whose session was
// lost signs in again as soon as that is possible.
func (s *site) work(p *person, stop chan struct{}) {
	for {
		if p.lost.Load() {
			if err := s.signIn(p); err != nil {
				s.logf("%v", err)
			}
		}
		var burst sync.WaitGroup
		for range 1 + rand.IntN(4) {
			burst.Go(func() { s.use(p) })
		}
		burst.Wait()
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(200+rand.IntN(400)) * time.Millisecond):
		}
	}
}

// use sends one request. If a gateway is down, it uses another one.
func (s *site) use(p *person) {
	for range 40 {
		g := s.gateways[rand.IntN(len(s.gateways))]
		res, err := p.client.Get(g.url + "/")
		if err != nil {
			s.answers.repeated.Add(1)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case res.StatusCode == http.StatusOK && string(text) == p.id:
			s.answers.ok.Add(1)
		case res.StatusCode == http.StatusOK:
			s.answers.wrong.Add(1)
		case res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusBadGateway:
			s.answers.unavailable.Add(1)
		case !p.lost.Swap(true):
			s.answers.lost.Add(1)
			if s.provider.wasCut(p.grant) {
				s.answers.lostCut.Add(1)
			}
			s.logf("%s lost the session: %s", p.name, res.Status)
		}
		return
	}
}
