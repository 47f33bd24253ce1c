package simulator

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// The status of a user. The numbers are those of the provider's product family.
const (
	StatusEnabled  = 1
	StatusDisabled = 2
	StatusDeleted  = 3
)

// unitsPerCent is the number of quota units in a US cent: 500,000 units are one
// dollar.
const unitsPerCent = 5000

// maxCents is the maximum balance, a billion dollars. So the quota cannot
// overflow an int64.
const maxCents = 1_000_000_000_00

// Errors of Spend, TopUp and UpdateUser.
var (
	ErrUnknownUser  = errors.New("unknown user")
	ErrInsufficient = errors.New("insufficient balance")
	ErrAmount       = errors.New("amount out of range")
)

// User is an account at the provider. A disabled user can still sign in here,
// so that a test can see how a client handles the status.
type User struct {
	ID       int64
	Username string
	Email    string // may be empty

	// BalanceCents is the balance in US cents. quota is computed from it.
	BalanceCents int64

	// UsedCents is the total amount spent, in US cents. used_quota is computed
	// from it.
	UsedCents int64

	Status      int
	CreatedTime int64 // Unix seconds
}

// Quota is the remaining balance in the provider's units.
func (u User) Quota() int64 { return u.BalanceCents * unitsPerCent }

// UsedQuota is the total amount spent, in the provider's units.
func (u User) UsedQuota() int64 { return u.UsedCents * unitsPerCent }

// Balance is the text of balance_formatted: dollars with two decimals.
func (u User) Balance() string { return formatCents(u.BalanceCents) }

func formatCents(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

// DefaultUsers returns the users of a simulator whose options name none: the
// user of the provider's document, one with little money, and one that is
// difficult for headers and pages: a name outside ASCII, no e-mail address and
// no money.
func DefaultUsers() []User {
	return []User{
		{
			ID: 12345, Username: "user123", Email: "user@example.com",
			BalanceCents: 750_00, UsedCents: 250_00,
			Status: StatusEnabled, CreatedTime: 1640995200,
		},
		{
			ID: 67890, Username: "maria", Email: "maria@example.com",
			BalanceCents: 3_20, UsedCents: 96_80,
			Status: StatusEnabled, CreatedTime: 1672531200,
		},
		{
			ID: 24680, Username: "张伟",
			Status: StatusEnabled, CreatedTime: 1704067200,
		},
	}
}

// userTable holds the accounts.
type userTable struct {
	mu    sync.RWMutex // guards users
	users []User       // only a few, so a linear search is enough
}

func newUserTable(users []User) *userTable {
	return &userTable{users: slices.Clone(users)}
}

func (t *userTable) list() []User {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.users)
}

func (t *userTable) find(match func(User) bool) (User, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := slices.IndexFunc(t.users, match)
	if i < 0 {
		return User{}, false
	}
	return t.users[i], true
}

func (t *userTable) byID(id int64) (User, bool) {
	return t.find(func(u User) bool { return u.ID == id })
}

func (t *userTable) byName(username string) (User, bool) {
	return t.find(func(u User) bool { return u.Username == username })
}

// update changes a user under the lock. If change returns an error, the user
// stays the same.
func (t *userTable) update(id int64, change func(*User) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.users, func(u User) bool { return u.ID == id })
	if i < 0 {
		return ErrUnknownUser
	}
	changed := t.users[i]
	if err := change(&changed); err != nil {
		return err
	}
	changed.ID = id // tokens refer to it
	t.users[i] = changed
	return nil
}

// Users returns all users.
func (p *Provider) Users() []User { return p.users.list() }

// User returns the user with this id.
func (p *Provider) User(id int64) (User, bool) { return p.users.byID(id) }

// UpdateUser changes any field of a user except the id. change runs under a
// lock and must not call the Provider.
func (p *Provider) UpdateUser(id int64, change func(*User)) error {
	return p.users.update(id, func(u *User) error {
		change(u)
		return nil
	})
}

// Spend takes money from a user, as a call to a model would. If the balance is
// too low, it takes nothing and returns ErrInsufficient.
func (p *Provider) Spend(userID, cents int64) error {
	if cents < 0 || cents > maxCents {
		return ErrAmount
	}
	return p.users.update(userID, func(u *User) error {
		if u.BalanceCents < cents {
			return ErrInsufficient
		}
		u.BalanceCents -= cents
		u.UsedCents += cents
		return nil
	})
}

// TopUp adds money to a user's balance.
func (p *Provider) TopUp(userID, cents int64) error {
	if cents < 0 || cents > maxCents {
		return ErrAmount
	}
	return p.users.update(userID, func(u *User) error {
		if u.BalanceCents > maxCents-cents {
			return ErrAmount
		}
		u.BalanceCents += cents
		return nil
	})
}
