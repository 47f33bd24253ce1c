package relay_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/relay"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// newStream adds a stream of a session to a table. It sends to ended when it is ended.
func newStream(table *relay.Table[int], name string, owner int, ended chan<- int, look func(string)) *relay.Stream[int] {
	s := &relay.Stream[int]{Session: name, Owner: owner, End: func(relay.End) { ended <- owner }}
	table.Add(s, time.Minute, look)
	return s
}

func TestCheckEndsTheStreamsThatLookNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, ended := relay.NewTable[int](), make(chan int, 10)
		for owner := range 4 {
			newStream(table, "a", owner, ended, func(string) {})
		}
		newStream(table, "b", 100, ended, func(string) {})
		var looked []int
		got := table.Check("a", func(s *relay.Stream[int]) (*relay.End, time.Duration) {
			looked = append(looked, s.Owner)
			if during := table.Check("a", func(*relay.Stream[int]) (*relay.End, time.Duration) { return &relay.Refused, 0 }); during != nil {
				t.Errorf("a check during a check: got %v, want nothing", during)
			}
			if s.Owner%2 == 0 {
				return &relay.Unpaid, time.Minute
			}
			return nil, time.Minute
		})
		if want := []int{3, 2, 1, 0}; !slices.Equal(looked, want) {
			t.Errorf("looked at %v, want the newest first: %v", looked, want)
		}
		if want := map[relay.End]int{relay.Unpaid: 2}; !maps.Equal(got, want) {
			t.Errorf("ended %v, want %v", got, want)
		}
		owners := []int{<-ended, <-ended}
		if slices.Sort(owners); !slices.Equal(owners, []int{0, 2}) {
			t.Errorf("the streams of %v were ended, want those of 0 and 2", owners)
		}
		if got := table.Len(); got != 3 {
			t.Errorf("%d streams are open, want 3", got)
		}
		table.EndAll(relay.GoingAway)
	})
}

func TestASessionIsCheckedInTheShortestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, ended, began := relay.NewTable[int](), make(chan int, 10), time.Now()
		var checks []time.Duration
		look := func(name string) {
			checks = append(checks, time.Since(began))
			table.Check(name, func(s *relay.Stream[int]) (*relay.End, time.Duration) {
				return nil, time.Duration(10+s.Owner) * time.Second
			})
		}
		streams := []*relay.Stream[int]{newStream(table, "a", 5, ended, look), newStream(table, "a", 0, ended, look)}
		time.Sleep(2*time.Minute + 15*time.Second)
		synctest.Wait()
		// The first check sets the interval of those after the second.
		if want := []time.Duration{time.Minute, 2 * time.Minute, 2*time.Minute + 10*time.Second}; !slices.Equal(checks, want) {
			t.Errorf("checked at %v, want %v", checks, want)
		}
		for _, s := range streams {
			table.Remove(s)
		}
		before := len(checks)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := len(checks); got != before {
			t.Errorf("%d checks after the last stream, want none", got-before)
		}
	})
}

func TestCheckIntervalDiffersBySession(t *testing.T) {
	for _, test := range []struct {
		first byte
		want  time.Duration
	}{
		{0, 256 * time.Second},
		{128, 256*time.Second - 256*time.Second/10},
		{255, 256*time.Second - 255*256*time.Second/5/256},
	} {
		if got := relay.CheckInterval(256*time.Second, session.ID{test.first}); got != test.want {
			t.Errorf("id %d: got %v, want %v", test.first, got, test.want)
		}
	}
}
