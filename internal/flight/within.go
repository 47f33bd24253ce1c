package flight

import (
	"time"
)

// Within reports whether a time since something is less than a pause. A clock that
// was set back ends the pause.
func Within(since, pause time.Duration) bool { return since >= 0 && since < pause }
