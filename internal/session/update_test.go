package session_test

import (
	"context"
	"errors"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func withToken(access string) *session.Session {
	return &session.Session{Tokens: oauth.Tokens{Access: access}}
}

// contested is a store whose session others write, too.
type contested struct {
	session.Store
	standing  *session.Session
	others    int // how many more writers come first
	rereadErr error
	saved     []*session.Session
}

func (c *contested) Save(_ context.Context, s *session.Session) (*session.Session, error) {
	if c.others > 0 {
		c.others--
		return nil, session.ErrMoved
	}
	c.saved = append(c.saved, s)
	return s, nil
}

func (c *contested) Reread(context.Context, *session.Session) (*session.Session, error) {
	return c.standing, c.rereadErr
}

func TestUpdateBeginsAgainAfterAnotherWriter(t *testing.T) {
	down := errors.New("the store is down")
	mine, theirs := withToken("mine"), withToken("theirs")
	for _, test := range []struct {
		name    string
		store   contested
		want    string // the access token of the session that is saved
		wantErr error
	}{
		{"nobody else writes", contested{standing: theirs}, "mine changed", nil},
		{"one other writer", contested{standing: theirs, others: 1}, "theirs changed", nil},
		{"the session has ended", contested{others: 1}, "", session.ErrEnded},
		{"the store fails", contested{others: 1, rereadErr: down}, "", down},
		{"others always come first", contested{standing: theirs, others: 1000}, "", session.ErrMoved},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := session.Update(t.Context(), &test.store, mine, func(standing *session.Session) *session.Session {
				changed := *standing
				changed.Tokens.Access += " changed"
				return &changed
			})
			if !errors.Is(err, test.wantErr) {
				t.Fatalf("error: got %v, want %v", err, test.wantErr)
			}
			if test.want == "" {
				if len(test.store.saved) != 0 {
					t.Errorf("got %d saved sessions, want none", len(test.store.saved))
				}
				return
			}
			if got == nil || got.Tokens.Access != test.want {
				t.Errorf("got %+v, want the access token %q", got, test.want)
			}
		})
	}
}

func TestUpdateSavesNothingIfNothingIsLeftToDo(t *testing.T) {
	mine := withToken("mine")
	store := contested{}
	got, err := session.Update(t.Context(), &store, mine, func(*session.Session) *session.Session { return nil })
	if got != mine || err != nil || len(store.saved) != 0 {
		t.Errorf("got %+v, error %v, %d saved sessions; want the session itself, no error, none saved", got, err, len(store.saved))
	}
}
