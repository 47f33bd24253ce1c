package keys

import (
	"fmt"
	"strings"
	"time"
)

// Rolling replaces a secret in three steps, so that every gateway can open a value before
// another one seals it. A file holds the secrets, one in each line. Notes in it say how far
// it is: a note is a comment in front of a secret.
const (
	// noteAdded is in front of a secret that only opens yet, because not every gateway may
	// know it.
	noteAdded = "# added "
	// noteSeals is in front of the first secret, if there are previous ones behind it.
	noteSeals = "# seals since "
)

// spreadTime is how long a secret only opens before it may seal. In this time the gateways
// read the file, and verifiers of assertions read the new public key. Kubernetes takes up to
// two minutes to change a mounted file, and verifiers keep keys for minutes.
const spreadTime = 10 * time.Minute

// retireMargin is for gateways that read the file later than it was written.
const retireMargin = time.Hour

// RollStep is a step of rolling a secret.
type RollStep int

// The steps, in their order.
const (
	// RollAdded means that a new secret was added behind the others. It only opens.
	RollAdded RollStep = iota
	// RollSeals means that the added secret is now the first: it seals.
	RollSeals
	// RollRetired means that only the first secret is left.
	RollRetired
)

// Rolled is the result of a step.
type Rolled struct {
	Step RollStep
	// Text is the file's new content.
	Text string
	// Next is when the next step may follow. It is zero if there is none.
	Next time.Time
	// Retired is how many secrets were removed.
	Retired int
}

// RollTooEarlyError says that the next step may not follow yet.
type RollTooEarlyError struct {
	Step RollStep
	// Since is when the previous step was, and From is when Step may follow.
	Since, From time.Time
}

// Error returns the time from which on the step may follow.
func (e *RollTooEarlyError) Error() string {
	return "too early: the next step may follow from " + e.From.Format(time.RFC3339) + " on"
}

// Roll makes the next step with the content of a file of secrets. lifetime is the longest
// lifetime of a session: as long after a new secret seals, values that a previous one sealed
// may arrive. With force a step may follow too early. No error contains a secret.
func Roll(text string, now time.Time, lifetime time.Duration, force bool) (Rolled, error) {
	if _, err := ParseSecrets(text); err != nil {
		return Rolled{}, err
	}
	entries, rest := parseRolled(text)
	for i, e := range entries {
		if e.added.IsZero() || i == 0 {
			continue
		}
		if from := e.added.Add(spreadTime); now.Before(from) && !force {
			return Rolled{}, &RollTooEarlyError{RollSeals, e.added, from}
		}
		return rollSeals(entries, i, rest, now, lifetime), nil
	}
	if len(entries) == 1 {
		entries[0].sealsSince = time.Time{}
		entries = append(entries, rollEntry{secret: NewSecret(), added: now})
		return Rolled{Step: RollAdded, Text: textOf(entries, rest), Next: now.Add(spreadTime)}, nil
	}
	since := entries[0].sealsSince
	if since.IsZero() && !force {
		return Rolled{}, fmt.Errorf("has %d secrets, and no note says since when the first one seals: "+
			"write `%s<time>` above it, for example `%s%s`, or remove the previous secrets with --force",
			len(entries), noteSeals, noteSeals, now.UTC().Format(time.RFC3339))
	}
	if from := since.Add(lifetime + retireMargin); now.Before(from) && !force {
		return Rolled{}, &RollTooEarlyError{RollRetired, since, from}
	}
	entries[0].sealsSince = time.Time{}
	return Rolled{Step: RollRetired, Text: textOf(entries[:1], rest), Retired: len(entries) - 1}, nil
}

// rollSeals moves an entry to the front.
func rollSeals(entries []rollEntry, which int, rest []string, now time.Time, lifetime time.Duration) Rolled {
	first := entries[which]
	first.added, first.sealsSince = time.Time{}, now
	ordered := []rollEntry{first}
	for i, e := range entries {
		if i != which {
			e.sealsSince = time.Time{}
			ordered = append(ordered, e)
		}
	}
	return Rolled{Step: RollSeals, Text: textOf(ordered, rest), Next: now.Add(lifetime + retireMargin)}
}

// rollEntry is a secret in a file, with the comments in front of it.
type rollEntry struct {
	comments          []string
	secret            string
	added, sealsSince time.Time // zero without the note
}

// parseRolled reads a file whose secrets were checked. rest are the comments behind the last
// secret. A note that cannot be read is a comment.
func parseRolled(text string) (entries []rollEntry, rest []string) {
	var e rollEntry
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if at, ok := readNote(line, noteAdded); ok {
			e.added = at
		} else if at, ok := readNote(line, noteSeals); ok {
			e.sealsSince = at
		} else if line == "" || strings.HasPrefix(line, "#") {
			e.comments = append(e.comments, line)
		} else {
			e.secret = line
			entries = append(entries, e)
			e = rollEntry{}
		}
	}
	return entries, e.comments
}

func readNote(line, prefix string) (at time.Time, ok bool) {
	text, ok := strings.CutPrefix(line, prefix)
	if !ok {
		return at, false
	}
	text, _, _ = strings.Cut(text, " ")
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}

// textOf is the content of a file with these entries.
func textOf(entries []rollEntry, rest []string) string {
	var b strings.Builder
	write := func(line string) { b.WriteString(line + "\n") }
	for _, e := range entries {
		for _, comment := range e.comments {
			write(comment)
		}
		if !e.added.IsZero() {
			write(noteAdded + e.added.UTC().Format(time.RFC3339) + " (only opens)")
		}
		if !e.sealsSince.IsZero() {
			write(noteSeals + e.sealsSince.UTC().Format(time.RFC3339))
		}
		write(e.secret)
	}
	for _, comment := range rest {
		if comment != "" {
			write(comment)
		}
	}
	return b.String()
}
