package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/config"
)

// slowStore is a latency that people notice on each request.
const slowStore = 100 * time.Millisecond

// storeTimeout limits each request to the store.
const storeTimeout = 5 * time.Second

// checkStore writes to the session store, and measures how long that takes. What it writes is
// removed, or expires within a minute.
func checkStore(ctx context.Context, e *examination) []Finding {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	store, probes := e.Store.(interface{ Probe(context.Context) error })
	switch {
	case e.StoreName == "cookie":
		return ok("sessions are in the browsers' cookies: nothing to reach")
	case e.StoreName == "storage":
		return judgeStore("Caddy's storage", "check the folder of Caddy's storage, and let the user that runs Caddy write to it; run doctor as that user",
			func() error { return probeStorage(ctx, e.Storage) })
	case !probes:
		return warn("not checked: doctor does not know the store "+e.StoreName, "ask the endpoint `ready` of the running gateway")
	default:
		return judgeStore("the store "+e.StoreName, "start the store, and check `address` and the network between this machine and the store",
			func() error { return store.Probe(ctx) })
	}
}

// judgeStore writes twice: the first write may also connect. The advice is for an error that
// adviceForStore does not know.
func judgeStore(name, advice string, write func() error) []Finding {
	err := write()
	begun := time.Now()
	if err == nil {
		err = write()
	}
	latency := time.Since(begun).Round(10 * time.Microsecond)
	switch {
	case err != nil:
		return fail(fmt.Sprintf("%s cannot be used: %s", name, config.WithoutSecrets(err, nil)), cmp.Or(adviceForStore(err), advice))
	case latency > slowStore:
		return warn(fmt.Sprintf("%s is slow: a write took %s", name, latency), "move it nearer to this machine, or find out what else it does")
	default:
		return ok("%s can be written, in %s", name, latency)
	}
}

// adviceForStore says what to do about an error of the store. It is empty for an unknown error.
func adviceForStore(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "READONLY"):
		return "`address` is a read-only replica: set it to the master, or use `sentinel`"
	case strings.Contains(text, "NOREPLICAS"):
		return "Redis refuses writes while too few replicas are connected: connect them, or lower `min-replicas-to-write` in Redis"
	case strings.Contains(text, "NOPERM"):
		return "allow the user's commands and keys in Redis: `ACL SETUSER <user> ~tollgate:* &* +@all -@dangerous`"
	case strings.Contains(text, "NOAUTH"), strings.Contains(text, "WRONGPASS"):
		return "set `username` and `password` of the store to those in Redis"
	case strings.Contains(text, "MISCONF"), strings.Contains(text, "OOM"), strings.Contains(text, "no space"):
		return "the store is full, or cannot save to its disk: give it room"
	case strings.Contains(text, "read-only file system"), strings.Contains(text, "permission denied"):
		return "let the user that runs Caddy write to the folder; run doctor as that user"
	default:
		return ""
	}
}

// probeStorage writes a value of its own to Caddy's storage, reads it, and removes it.
func probeStorage(ctx context.Context, storage certmagic.Storage) (err error) {
	key, value := "tollgate/doctor-"+rand.Text(), "doctor"
	if err := storage.Store(ctx, key, []byte(value)); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	defer func() {
		if deleteErr := storage.Delete(ctx, key); err == nil && deleteErr != nil {
			err = fmt.Errorf("deleting: %w", deleteErr)
		}
	}()
	read, err := storage.Load(ctx, key)
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if string(read) != value {
		return errors.New("reading: the storage returned another value than was written")
	}
	return nil
}
