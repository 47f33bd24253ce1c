package simulator

import (
	"slices"
	"testing"
)

func keys(t *table[string, int]) []string {
	var list []string
	for key := range t.all() {
		list = append(list, key)
	}
	return list
}

func TestFullTableForgetsItsOldestEntry(t *testing.T) {
	table := newTable[string, int](2)
	table.put("a", 1)
	table.put("b", 2)
	table.put("c", 3)
	if _, ok := table.get("a"); ok {
		t.Error("the oldest entry is still there")
	}
	if got := keys(table); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("left %v", got)
	}
}

func TestPuttingAgainReplacesAndMakesNewest(t *testing.T) {
	table := newTable[string, int](2)
	table.put("a", 1)
	table.put("b", 2)
	table.put("a", 3)
	table.put("c", 4)
	if got := keys(table); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("left %v", got)
	}
	if value, _ := table.get("a"); value != 3 {
		t.Errorf("value %d", value)
	}
}

func TestEntriesMayBeDeletedWhileLooping(t *testing.T) {
	table := newTable[string, int](5)
	for i, key := range []string{"a", "b", "c", "d"} {
		table.put(key, i)
	}
	for key, value := range table.all() {
		if value%2 == 0 {
			table.delete(key)
		}
	}
	if got := keys(table); !slices.Equal(got, []string{"b", "d"}) {
		t.Errorf("left %v", got)
	}
	table.clear()
	if len(keys(table)) != 0 {
		t.Error("clear left something")
	}
	table.put("e", 5)
	if got := keys(table); !slices.Equal(got, []string{"e"}) {
		t.Errorf("after clear: %v", got)
	}
}

func TestRandomSecretsDiffer(t *testing.T) {
	for name, create := range map[string]func() string{
		"access":  func() string { return newAccessToken(200) },
		"refresh": newRefreshToken,
		"code":    newCode,
	} {
		if first, second := create(), create(); first == second {
			t.Errorf("two %s secrets are the same", name)
		}
	}
}
