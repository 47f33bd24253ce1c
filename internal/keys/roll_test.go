package keys

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const lifetime = 30 * 24 * time.Hour

var rollStart = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// secretsIn returns the secrets of a file's lines, in their order.
func secretsIn(text string) (secrets []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			secrets = append(secrets, line)
		}
	}
	return secrets
}

func mustRoll(t *testing.T, text string, now time.Time, want RollStep, next time.Time) string {
	t.Helper()
	rolled, err := Roll(text, now, lifetime, false)
	if err != nil || rolled.Step != want || !rolled.Next.Equal(next) {
		t.Fatalf("got step %d, next %v, %v, want step %d, next %v", rolled.Step, rolled.Next, err, want, next)
	}
	if _, err := ParseSecrets(rolled.Text); err != nil {
		t.Fatalf("the gateway cannot read the file: %v\n%s", err, rolled.Text)
	}
	return rolled.Text
}

func wantTooEarly(t *testing.T, text string, now time.Time, want RollStep, from time.Time) {
	t.Helper()
	_, err := Roll(text, now, lifetime, false)
	early, ok := errors.AsType[*RollTooEarlyError](err)
	if !ok || early.Step != want || !early.From.Equal(from) {
		t.Errorf("at %v: got %+v (%v), want step %d to follow from %v on", now, early, err, want, from)
	}
}

func TestRollAddsThenSealsThenRetires(t *testing.T) {
	old := NewSecret()
	text := "# of the shop\n" + old + "\n\n# the end\n"

	added := mustRoll(t, text, rollStart, RollAdded, rollStart.Add(spreadTime))
	both := secretsIn(added)
	if len(both) != 2 || both[0] != old || both[1] == old {
		t.Fatalf("after the first step the file is\n%s\nwant the old secret first, and a new one behind it", added)
	}
	seals := rollStart.Add(spreadTime)
	wantTooEarly(t, added, seals.Add(-time.Second), RollSeals, seals)

	swapped := mustRoll(t, added, seals, RollSeals, seals.Add(lifetime+retireMargin))
	if got := secretsIn(swapped); !slices.Equal(got, []string{both[1], old}) {
		t.Fatalf("after the second step the file is\n%s\nwant the new secret first", swapped)
	}
	if !strings.Contains(swapped, "# seals since 2026-06-01T12:10:00Z\n"+both[1]) || strings.Contains(swapped, noteAdded) {
		t.Errorf("the file does not say since when the new secret seals:\n%s", swapped)
	}
	end := seals.Add(lifetime + retireMargin)
	wantTooEarly(t, swapped, end.Add(-time.Second), RollRetired, end)

	alone := mustRoll(t, swapped, end, RollRetired, time.Time{})
	if got := secretsIn(alone); !slices.Equal(got, both[1:]) || strings.Contains(alone, noteSeals) {
		t.Errorf("after the third step the file is\n%s\nwant the new secret alone", alone)
	}
	if !strings.Contains(alone, "# the end\n") {
		t.Errorf("a comment of the operator is gone:\n%s", alone)
	}
	mustRoll(t, alone, end, RollAdded, end.Add(spreadTime))
}

func TestRollForcesAStep(t *testing.T) {
	text := NewSecret()
	for _, want := range []RollStep{RollAdded, RollSeals, RollRetired, RollAdded} {
		rolled, err := Roll(text, rollStart, lifetime, true)
		if err != nil || rolled.Step != want {
			t.Fatalf("got step %d, %v, want %d", rolled.Step, err, want)
		}
		text = rolled.Text
	}
}

func TestRollRefusesAFileThatItDoesNotUnderstand(t *testing.T) {
	secret := NewSecret()
	for text, want := range map[string]string{
		"":                           "is empty",
		"# nothing\n":                "is empty",
		"short":                      "neither 64",
		secret + "\nnot a secret!\n": "line 2",
		secret + "\n" + NewSecret():  "no note says since when",
		strings.Repeat(secret+"\n", maxSecrets+1): "the maximum is 16",
	} {
		_, err := Roll(text, rollStart, lifetime, false)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: got %v, want %s and no secret", text, err, want)
		}
	}
}

func TestASealedValueOpensInEachPhaseOfARoll(t *testing.T) {
	ringOf := func(text string) *Ring {
		secrets, err := ParseSecrets(text)
		if err != nil {
			t.Fatal(err)
		}
		ring, err := NewRing(secrets, "client", "https://app.example.com/cb")
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
	phases := []string{NewSecret()}
	for range 3 {
		rolled, err := Roll(phases[len(phases)-1], rollStart, lifetime, true)
		if err != nil {
			t.Fatal(err)
		}
		phases = append(phases, rolled.Text)
	}
	// Two gateways may be one step apart.
	for i := range len(phases) - 1 {
		for _, pair := range [][2]int{{i, i + 1}, {i + 1, i}} {
			sealed, _ := ringOf(phases[pair[0]]).Ticket.Seal([]byte("ticket"))
			if _, _, ok := ringOf(phases[pair[1]]).Ticket.Open(sealed); !ok {
				t.Errorf("a gateway in phase %d cannot open what one in phase %d seals", pair[1], pair[0])
			}
		}
	}
}
