package recent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/recent"
)

func TestTableForgetsAfterItsTime(t *testing.T) {
	const lifetime = 3 * time.Second
	for _, test := range []struct {
		name string
		act  func(*recent.Table[string, int])
		want bool
	}{
		{"a value that was just set", func(table *recent.Table[string, int]) { table.Set("a", 1) }, true},
		{"a value whose time is over", func(table *recent.Table[string, int]) {
			table.Set("a", 1)
			time.Sleep(2 * lifetime)
		}, false},
		{"a value that was set again", func(table *recent.Table[string, int]) {
			table.Set("a", 0)
			time.Sleep(lifetime - time.Second)
			table.Set("a", 1)
			time.Sleep(lifetime - time.Second)
		}, true},
		{"a value that was forgotten", func(table *recent.Table[string, int]) {
			table.Set("a", 1)
			table.Forget("a")
		}, false},
		{"all values were forgotten", func(table *recent.Table[string, int]) {
			table.Set("a", 1)
			table.ForgetAll()
		}, false},
		{"a value of another key", func(table *recent.Table[string, int]) { table.Set("b", 1) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			table := recent.NewTable[string, int](100, lifetime)
			defer table.Close()
			test.act(table)
			if value, ok := table.Get("a"); ok != test.want || ok && value != 1 {
				t.Errorf("%s: got %d, %t, want known: %t", test.name, value, ok, test.want)
			}
		})
	}
}

func TestSetIfAbsentKeepsTheFirstValue(t *testing.T) {
	table := recent.NewTable[string, int](100, time.Minute)
	defer table.Close()
	for i, want := range []bool{true, false, false} {
		if got := table.SetIfAbsent("a", i); got != want {
			t.Errorf("call %d: got %t, want %t", i, got, want)
		}
	}
	if got, _ := table.Get("a"); got != 0 {
		t.Errorf("got %d, want the first value, 0", got)
	}
}
