package tollgate_test

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/redistest"
)

// sharedPlaces are the session blocks with which processes share their sessions.
var sharedPlaces = map[string]func(t *testing.T) string{
	"storage": func(*testing.T) string { return "store storage" },
	"redis": func(t *testing.T) string {
		return "store redis {\n\t\t\t\taddress " + redistest.Start(t).Address() + "\n\t\t\t}"
	},
}

// forEachSharedPlace runs a test with each, side by side: its processes mostly wait.
func forEachSharedPlace(t *testing.T, test func(t *testing.T, session string)) {
	for name, place := range sharedPlaces {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, place(t))
		})
	}
}
