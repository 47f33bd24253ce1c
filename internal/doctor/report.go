package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Status is the result of one check.
type Status string

// The results of a check. Only a Failure makes the command fail.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failure Status = "failure"
)

// Finding is what one check found at one site. It contains no secret.
type Finding struct {
	// Site is the external origin. If two sites have the same one, the site's own address
	// follows it in brackets. Site is empty for a finding about the whole configuration.
	Site   string `json:"site,omitempty"`
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Text says what was found, and Do what to do about it.
	Text string `json:"text"`
	Do   string `json:"do,omitempty"`
}

// Report is the result of all checks, in their order.
type Report struct {
	Findings []Finding
}

// Status is the worst status of all findings.
func (r *Report) Status() Status {
	worst := OK
	for _, f := range r.Findings {
		if f.Status == Failure || f.Status == Warning && worst == OK {
			worst = f.Status
		}
	}
	return worst
}

// Count returns how many findings have a status.
func (r *Report) Count(s Status) (n int) {
	for _, f := range r.Findings {
		if f.Status == s {
			n++
		}
	}
	return n
}

// MarshalJSON implements json.Marshaler.
func (r *Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Status   Status    `json:"status"`
		Findings []Finding `json:"findings"`
	}{r.Status(), r.Findings})
}

// WriteTo writes the report for people: the findings of each site below its origin.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	width := 0
	for _, f := range r.Findings {
		width = max(width, utf8.RuneCountInString(f.Check))
	}
	site := ""
	for _, f := range r.Findings {
		if f.Site != site {
			site = f.Site
			b.WriteString("\n" + site + "\n")
		}
		fmt.Fprintf(&b, "%-8s %-*s  %s\n", f.Status, width, f.Check, f.Text)
		if f.Do != "" {
			fmt.Fprintf(&b, "%*s  %s\n", width+9, "", "→ "+f.Do)
		}
	}
	fmt.Fprintf(&b, "\n%s, %s\n", counted(r.Count(Failure), "failure"), counted(r.Count(Warning), "warning"))
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// counted writes a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// ok, warn and fail make the findings of a check.
func ok(format string, args ...any) []Finding {
	return []Finding{{Status: OK, Text: fmt.Sprintf(format, args...)}}
}

func warn(text, do string) []Finding { return []Finding{{Status: Warning, Text: text, Do: do}} }

func fail(text, do string) []Finding { return []Finding{{Status: Failure, Text: text, Do: do}} }
