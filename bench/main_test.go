package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be started again in the roles of the benchmark.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		playRole(role)
		return
	}
	os.Exit(m.Run())
}

func TestWholeRun(t *testing.T) {
	o, err := parseOptions([]string{"-connections", "4", "-rounds", "2", "-duration", "50ms", "-sessions", "20", "-other-cookies", "1"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := startSite(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	sessions, err := s.signInAll(o.sessions)
	if err != nil {
		t.Fatal(s.explain(err))
	}
	cases := newCases(o, s, sessions)
	defer closeCases(cases)
	results, err := measure(o, s, cases)
	if err != nil {
		t.Fatal(s.explain(err))
	}
	if err := s.checkProvider(o); err != nil {
		t.Error(err)
	}
	var report bytes.Buffer
	writeReport(&report, o, machineFacts(), cases, results)
	for _, c := range cases[1:] {
		if !strings.Contains(report.String(), "| "+c.site) {
			t.Errorf("the report says nothing of %s:\n%s", c, report.String())
		}
	}

	// A gate that lets nobody in must fail the run: 401s are fast.
	forged := sessions[0]
	forged.cookie = strings.Replace(forged.cookie, "=1.", "=1.A", 1)
	refused := newCase(o, siteGated, oneHot, s.gated, []benchSession{forged}, expectUser)
	defer closeCases([]*benchCase{refused})
	var shown turn
	if err := refused.load(50*time.Millisecond, &shown); err == nil || !strings.Contains(err.Error(), "status 401") {
		t.Errorf("a refused session gave %v", err)
	}
	// And so must the identity of somebody else.
	swapped := newCase(o, siteGated, oneHot, s.gated, []benchSession{{userID: sessions[1].userID, cookie: sessions[0].cookie}}, expectUser)
	defer closeCases([]*benchCase{swapped})
	if err := swapped.load(50*time.Millisecond, &shown); err == nil || !strings.Contains(err.Error(), "wrong response") {
		t.Errorf("another user's identity gave %v", err)
	}
}

func TestOptionsAreRefused(t *testing.T) {
	for _, args := range []string{"extra", "-rounds 0", "-connections 0", "-sessions 0", "-sessions 10001", "-duration 0s", "-token-size 10", "-other-cookies -1", "-max-age 0s"} {
		if _, err := parseOptions(strings.Fields(args)); err == nil {
			t.Errorf("%s was accepted", args)
		}
	}
}
