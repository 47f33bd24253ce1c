package simulator_test

import (
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestSpendingMovesMoneyFromBalanceToUsed(t *testing.T) {
	p := simulator.New(simulator.Options{})
	if err := p.Spend(userID, 1_25); err != nil {
		t.Fatal(err)
	}
	user, _ := p.User(userID)
	if user.Balance() != "748.75" || user.Quota() != 374375000 || user.UsedQuota() != 125625000 {
		t.Errorf("balance %s, quota %d, used %d", user.Balance(), user.Quota(), user.UsedQuota())
	}
}

func TestSpendAndTopUpRefuseImpossibleAmounts(t *testing.T) {
	p := simulator.New(simulator.Options{})
	for name, test := range map[string]struct {
		do   func(int64, int64) error
		id   int64
		by   int64
		want error
	}{
		"spending more than there is": {p.Spend, 67890, 3_21, simulator.ErrInsufficient},
		"spending less than nothing":  {p.Spend, 67890, -1, simulator.ErrAmount},
		"spending of nobody":          {p.Spend, 1, 1, simulator.ErrUnknownUser},
		"adding less than nothing":    {p.TopUp, 67890, -1, simulator.ErrAmount},
		"adding too much":             {p.TopUp, 67890, math.MaxInt64, simulator.ErrAmount},
		"adding up to too much":       {p.TopUp, 67890, 1_000_000_000_00, simulator.ErrAmount},
		"adding to nobody":            {p.TopUp, 1, 1, simulator.ErrUnknownUser},
	} {
		if err := test.do(test.id, test.by); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if user, _ := p.User(67890); user.BalanceCents != 3_20 {
		t.Errorf("a refused change left %s", user.Balance())
	}
}

func TestTheWholeBalanceCanBeSpent(t *testing.T) {
	p := simulator.New(simulator.Options{})
	if err := p.Spend(67890, 3_20); err != nil {
		t.Fatal(err)
	}
	if user, _ := p.User(67890); user.Balance() != "0.00" {
		t.Errorf("left %s", user.Balance())
	}
}

func TestParallelSpendingNeverGoesBelowZero(t *testing.T) {
	p := simulator.New(simulator.Options{})
	var group sync.WaitGroup
	var mu sync.Mutex
	spent := 0
	for range 50 {
		group.Go(func() {
			if p.Spend(67890, 10) == nil {
				mu.Lock()
				defer mu.Unlock()
				spent++
			}
		})
	}
	group.Wait()
	if user, _ := p.User(67890); spent != 32 || user.BalanceCents != 0 {
		t.Errorf("spent %d times, left %s", spent, user.Balance())
	}
}

func TestBalanceHasTwoDecimals(t *testing.T) {
	for cents, want := range map[int64]string{
		0: "0.00", 5: "0.05", 10: "0.10", 100: "1.00", 123456: "1234.56", -1: "-0.01", -250: "-2.50",
	} {
		if got := (simulator.User{BalanceCents: cents}).Balance(); got != want {
			t.Errorf("%d cents: %q, want %q", cents, got, want)
		}
	}
}

func TestUpdateUserKeepsTheID(t *testing.T) {
	p := simulator.New(simulator.Options{})
	if err := p.UpdateUser(userID, func(u *simulator.User) { u.ID, u.Email = 1, "new@example.com" }); err != nil {
		t.Fatal(err)
	}
	if user, ok := p.User(userID); !ok || user.Email != "new@example.com" {
		t.Errorf("%v %v", user, ok)
	}
	if err := p.UpdateUser(1, func(*simulator.User) {}); !errors.Is(err, simulator.ErrUnknownUser) {
		t.Errorf("unknown user: %v", err)
	}
}

func TestProvidersShareNoUsers(t *testing.T) {
	users := simulator.DefaultUsers()
	one := simulator.New(simulator.Options{Users: users})
	two := simulator.New(simulator.Options{Users: users})
	if err := one.Spend(userID, 100); err != nil {
		t.Fatal(err)
	}
	one.Users()[0].BalanceCents = 0 // a copy
	if user, _ := one.User(userID); user.Balance() != "749.00" {
		t.Errorf("the list is no copy: %s", user.Balance())
	}
	if user, _ := two.User(userID); user.Balance() != "750.00" {
		t.Errorf("spending showed elsewhere: %s", user.Balance())
	}
}
