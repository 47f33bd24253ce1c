package cause

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// typed is an error that names its cause, as *oauth.Error does.
type typed string

func (typed) Error() string   { return "failed" }
func (t typed) Cause() string { return string(t) }

func TestOfFindsTheCauseInTheChain(t *testing.T) {
	plain := errors.New("plain")
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"nil":               {nil, ""},
		"plain":             {plain, ServerError},
		"typed":             {typed(RateLimited), RateLimited},
		"wrapped":           {fmt.Errorf("more: %w", typed(RateLimited)), RateLimited},
		"joined":            {errors.Join(plain, typed(InvalidGrant)), InvalidGrant},
		"unknown code":      {typed("made_up"), ServerError},
		"deadline":          {fmt.Errorf("more: %w", context.DeadlineExceeded), Timeout},
		"else":              {Else(StoreUnavailable, plain), StoreUnavailable},
		"else keeps":        {Else(StoreUnavailable, typed(Timeout)), Timeout},
		"else keeps itself": {Else(StoreUnavailable, Else(SessionTooLarge, plain)), SessionTooLarge},
		"else of nil":       {Else(StoreUnavailable, nil), ""},
	} {
		if got := Of(test.err); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	if err := Else(StoreUnavailable, plain); !errors.Is(err, plain) || err.Error() != "plain" {
		t.Errorf("Else changed the error: %v", err)
	}
}

func TestEachRowIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range All() {
		if seen[row.Code] {
			t.Errorf("%s: two rows", row.Code)
		}
		seen[row.Code] = true
		if row.Hint == "" || row.Words == "" || row.Status < 400 || (row.Level != Info && row.Level != Warn && row.Level != Error) {
			t.Errorf("incomplete row: %+v", row)
		}
		if found, ok := Find(row.Code); !ok || found != row {
			t.Errorf("Find(%q) = %+v, %v", row.Code, found, ok)
		}
	}
	if len(seen) != 23 {
		t.Errorf("got %d causes, want 23", len(seen))
	}
	if _, ok := Find("made_up"); ok {
		t.Error("Find knows a cause that does not exist")
	}
}
