package account_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func userInfo(balance oauth.Scalar, readAt time.Time) oauth.UserInfo {
	return oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: "12345", oauth.FieldBalance: balance}, readAt)
}

// TestClientThatLeavesDoesNotEndTheWaitOfOthers: the provider is slow, but within the timeout.
func TestClientThatLeavesDoesNotEndTheWaitOfOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(time.Minute) // the read ends
		ages := account.Ages{MaxAge: time.Minute, MaxStale: 15 * time.Minute}
		users := account.NewUsers(time.Now, nil)
		s := &session.Session{User: userInfo("1", time.Now())}
		time.Sleep(time.Hour)
		reads := 0
		read := func(context.Context) (oauth.UserInfo, error) {
			reads++
			time.Sleep(time.Second) // half of the timeout of a read
			return userInfo("2", time.Now()), nil
		}
		ctx, leave := context.WithCancel(t.Context())
		go users.Current(ctx, s, time.Now(), ages, nil, read)
		synctest.Wait()
		leave()
		synctest.Wait()
		view := users.Current(t.Context(), s, time.Now(), ages, nil, read)
		if got := view.Info.Text(oauth.FieldBalance); got != "2" || reads != 1 {
			t.Errorf("got the balance %q after %d reads, want 2 after one", got, reads)
		}
	})
}

func TestAReadThatCannotBeginIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := 0
		users := account.NewUsers(time.Now, func(_ *session.Session, err error) {
			if err == account.ErrReadsBusy {
				busy++
			}
		})
		for taken := false; !taken; { // TakeSlot fails after its timeout if no slot is free
			_, err := users.TakeSlot()
			taken = err != nil
		}
		s := &session.Session{User: userInfo("1", time.Now())}
		time.Sleep(time.Hour)
		ages := account.Ages{MaxAge: time.Minute, MaxStale: 15 * time.Minute}
		view := users.Current(t.Context(), s, time.Now(), ages, nil, func(context.Context) (oauth.UserInfo, error) {
			t.Error("a read beyond the limit")
			return oauth.UserInfo{}, nil
		})
		synctest.Wait()
		if got := view.Info.Text(oauth.FieldBalance); got != "1" || view.State != "unknown" || busy != 1 {
			t.Errorf("got the balance %q, %s, and %d reports, want 1, unknown and one", got, view.State, busy)
		}
	})
}

// TestEndedSessionsDoNotFailTheReadOfALiveOne: a live session joins the reads of several
// sessions of its user that have ended. Each of these reads once.
func TestEndedSessionsDoNotFailTheReadOfALiveOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		users := account.NewUsers(time.Now, nil)
		s := &session.Session{User: userInfo("1", time.Now())}
		var ended atomic.Int32
		for range 4 {
			go users.Reread(t.Context(), s, func(context.Context) (oauth.UserInfo, error) {
				ended.Add(1)
				time.Sleep(time.Second)
				return oauth.UserInfo{}, session.ErrEnded
			})
			synctest.Wait()
		}
		err := users.Reread(t.Context(), s, func(context.Context) (oauth.UserInfo, error) { return userInfo("2", time.Now()), nil })
		if err != nil {
			t.Errorf("the live session: got %v, want no error", err)
		}
		time.Sleep(time.Minute) // the other reads end
		if n := ended.Load(); n > 4 {
			t.Errorf("sessions that have ended: got %d reads, want at most one each", n)
		}
	})
}
