package spending

import "time"

// Window is a span of UTC time in which a budget is spent: it begins and ends with the
// hour, the day or the month.
type Window byte

// The windows, by the word of the configuration.
const (
	Hour  Window = 'h'
	Day   Window = 'd'
	Month Window = 'm'
)

// ParseWindow reads the word of the configuration: hour, day or month.
func ParseWindow(word string) (w Window, ok bool) {
	switch word {
	case "hour":
		return Hour, true
	case "day":
		return Day, true
	case "month":
		return Month, true
	}
	return 0, false
}

// String returns the word of the configuration.
func (w Window) String() string {
	switch w {
	case Hour:
		return "hour"
	case Day:
		return "day"
	default:
		return "month"
	}
}

// bounds returns the begin and the end of the window around a time, in Unix milliseconds.
func (w Window) bounds(now int64) (start, end int64) {
	const hour, day = int64(time.Hour / time.Millisecond), int64(24 * time.Hour / time.Millisecond)
	switch w {
	case Hour:
		start = now - now%hour
		return start, start + hour
	case Day:
		start = now - now%day
		return start, start + day
	default:
		t := time.UnixMilli(now).UTC()
		first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		return first.UnixMilli(), first.AddDate(0, 1, 0).UnixMilli()
	}
}

// Budget is what a user may spend in a window. Budgets with the same key and window share
// one account, so a changed limit does not reset what was spent.
type Budget struct {
	// Key names the account. It has letters, digits and `-_./` only, and at most 64 bytes.
	Key    string
	Window Window
	Limit  Amount
}

// account counts what a user has spent of a budget, and what running requests hold of it.
type account struct {
	key    string
	window Window
	start  int64 // of the window in which spent counts
	spent  Amount
	held   Amount
}

// turn begins a new window if the old one has ended. A clock that was set back does not
// bring an older window back: the user would get its budget twice. If a
// clock was so wrong that start lies more than a window ahead, start moves back, and what was
// spent is kept.
func (a *account) turn(now int64) (end int64) {
	start, end := a.window.bounds(now)
	switch {
	case start > a.start:
		a.start, a.spent = start, Amount{}
	case a.start > end:
		a.start = start
	case a.start == end: // the next window has begun already, by a clock that was ahead
		_, end = a.window.bounds(a.start)
	}
	return end
}

// isOver reports whether a request with this amount exceeds the limit. A request that
// holds nothing needs something to be left. inFlight is true if it would pass if the
// running requests cost nothing.
func (a *account) isOver(limit, amount Amount) (over, inFlight bool) {
	exceeds := func(used Amount) bool {
		if amount.IsZero() {
			return !used.Less(limit)
		}
		return limit.Less(used.Add(amount))
	}
	if !exceeds(a.spent.Add(a.held)) {
		return false, false
	}
	return true, !exceeds(a.spent)
}
