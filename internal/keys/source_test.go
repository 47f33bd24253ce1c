package keys

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// slowStorage fails after a while.
type slowStorage struct{ SecretStorage }

func (slowStorage) Load(context.Context, string) ([]byte, error) {
	time.Sleep(200 * time.Millisecond)
	return nil, errors.New("out of order")
}

func TestFailingStorageDoesNotQueueRequests(t *testing.T) {
	source, err := NewSource(nil, slowStorage{}, "client", "https://app.example.com/oauth/callback")
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
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("20 callers waited %v, want at most 2s", took)
	}
}
