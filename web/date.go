package web

import (
	"strconv"
	"strings"
	"time"
)

// date formats a time in the language, in UTC: a page without scripts does not know the
// user's time zone.
func (l *translation) date(moment time.Time) (string, error) {
	moment = moment.UTC()
	month := strings.Fields(l.text["months"])[moment.Month()-1]
	return l.fill("date", "day", strconv.Itoa(moment.Day()), "month", month,
		"year", strconv.Itoa(moment.Year()), "time", moment.Format("15:04"))
}

// Wait says in words how long RetryAfter is. This helps people in every time zone. It
// is empty if RetryAfter is zero.
func (v view) Wait() (string, error) {
	if v.RetryAfter == 0 {
		return "", nil
	}
	unit, number := inWords(time.Duration(v.RetryAfter) * time.Second)
	key := v.lang.variant("budget.wait_"+unit, false, number)
	return v.lang.fill(key, "number", v.lang.number(number))
}

// inWords returns the unit in which a text names a wait, and the number of units.
func inWords(wait time.Duration) (unit string, number int) {
	const day = 24 * time.Hour
	switch {
	case wait <= time.Hour:
		return "minutes", int((wait + time.Minute - 1) / time.Minute)
	case wait <= 2*day:
		return "hours", int(wait.Round(time.Hour) / time.Hour)
	default:
		return "days", int(wait.Round(day) / day)
	}
}
