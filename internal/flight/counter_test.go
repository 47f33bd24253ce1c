package flight_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/flight"
)

func TestCounterWaitsForAllWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var counter flight.Counter
		if !counter.Wait(0) {
			t.Error("nothing has begun: got false, want true")
		}
		for i := range 3 {
			end := counter.Begin()
			time.AfterFunc(time.Duration(i+1)*time.Second, end)
		}
		began := time.Now()
		if !counter.Wait(time.Minute) || time.Since(began) != 3*time.Second {
			t.Errorf("waited %v, want 3s", time.Since(began))
		}
		if n := counter.Count(); n != 0 {
			t.Errorf("got %d running, want 0", n)
		}
	})
}

func TestCounterGivesUpAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var counter flight.Counter
		end := counter.Begin()
		began := time.Now()
		if counter.Wait(time.Second) || time.Since(began) != time.Second {
			t.Errorf("waited %v, want false after 1s", time.Since(began))
		}
		end()
		end() // twice is once
		if !counter.Wait(0) || counter.Count() != 0 {
			t.Errorf("got %d running, want 0", counter.Count())
		}
	})
}

func TestCounterWaitsForWorkThatBeginsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var counter flight.Counter
		first := counter.Begin()
		time.AfterFunc(time.Second, func() {
			second := counter.Begin()
			first()
			time.AfterFunc(time.Second, second)
		})
		began := time.Now()
		if !counter.Wait(time.Minute) || time.Since(began) != 2*time.Second {
			t.Errorf("waited %v, want 2s", time.Since(began))
		}
	})
}
