package keys

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowStorage fails after a while.
type slowStorage struct{ SecretStorage }

func (slowStorage) Load(context.Context, string) ([]byte, error) {
	time.Sleep(200 * time.Millisecond)
	return nil, errors.New("out of order")
}

func TestFailingStorageDoesNotQueueRequests(t *testing.T) {
	synctest.Test(t, failingStorageDoesNotQueueRequests)
}

func failingStorageDoesNotQueueRequests(t *testing.T) {
	source, err := NewSource(nil, slowStorage{}, "client", "https://app.example.com/oauth/callback", nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if _, err := source.Ring(t.Context()); err == nil {
				t.Error("got keys from a storage that fails, want an error")
			}
		})
	}
	callers.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := source.Ring(ctx); err == nil {
		t.Error("got keys for a caller that has left, want an error")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("20 callers waited %v, want at most 1s", took)
	}
}

func TestReplacedSecretsSealAtOnceAndOldOnesAreSeen(t *testing.T) {
	first, second := []byte(strings.Repeat("1", 32)), []byte(strings.Repeat("2", 32))
	uses := 0
	source, err := NewSource([][]byte{first}, nil, "client", "https://app.example.com/cb", func() { uses++ })
	if err != nil {
		t.Fatal(err)
	}
	before, _ := source.Ring(t.Context())
	sealed, _ := before.Session.Seal([]byte("session"))
	if changed, err := source.Replace([][]byte{first}); changed || err != nil {
		t.Errorf("the same secrets: got changed %v, %v", changed, err)
	}
	if changed, err := source.Replace([][]byte{second, first}); !changed || err != nil {
		t.Fatalf("other secrets: got changed %v, %v", changed, err)
	}
	after, _ := source.Ring(t.Context())
	if _, which, ok := after.Session.Open(sealed); !ok || which != 1 || uses != 1 {
		t.Errorf("got ok %v, secret %d and %d uses of a previous secret, want true, 1 and 1", ok, which, uses)
	}
	resealed, _ := after.Session.Seal([]byte("session"))
	if _, which, ok := after.Session.Open(resealed); !ok || which != 0 || uses != 1 {
		t.Errorf("got ok %v, secret %d and %d uses, want true, 0 and 1", ok, which, uses)
	}
	if _, err := source.Replace([][]byte{second}); err != nil {
		t.Fatal(err)
	}
	alone, _ := source.Ring(t.Context())
	if _, _, ok := alone.Session.Open(sealed); ok {
		t.Error("a value of a removed secret opens")
	}
}
