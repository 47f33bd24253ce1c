package tollgate_test

import "time"

// Limits of the gateway. They are repeated here and not read from the code, so that tests fail if
// a limit changes by mistake.
const (
	// readTimeout is how long requests wait for a reading of user information, and maxReads
	// is how many such readings run at a time.
	readTimeout = 2 * time.Second
	maxReads    = 64
	// scarceAge is the age up to which a balance may decide on a 402, topupAge the same after a
	// visit to topup, and topupWatch is how long that lasts.
	scarceAge  = 5 * time.Second
	topupAge   = 2 * time.Second
	topupWatch = 2 * time.Minute

	// maxPendingLogins is how many sign-ins of a browser may be pending. maxLoginBytes and
	// maxAllBytes are how many bytes their cookies, and all cookies of ours, may take.
	maxPendingLogins = 5
	maxLoginBytes    = 4096
	maxAllBytes      = 8192
	// maxRemovals is how many cookies of sign-ins one response deletes.
	maxRemovals = 20
	// maxLoginPath is the longest return path in the cookie of a sign-in.
	maxLoginPath = 1024
	// loopLogins is how many sign-ins for one page make a loop.
	loopLogins = 5

	// backOffExpired and backOffRefused are the pauses after a failed and a refused refresh.
	backOffExpired = 2 * time.Second
	backOffRefused = 30 * time.Second

	// maxReplayedBody is the largest body of a request that is sent again.
	maxReplayedBody = 1 << 20
	// closeTimeout is how long the client of an ended WebSocket has to answer.
	closeTimeout = 3 * time.Second
	// maxOddPath is the longest escaped path that may be ambiguous.
	maxOddPath = 2048
	// storageReadAge is how long the store storage may answer from its memory.
	storageReadAge = 500 * time.Millisecond
)
