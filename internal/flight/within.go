package flight

import "time"

// Within reports whether a pause that began since ago still lasts. A clock that was set
// back ends it.
func Within(since, pause time.Duration) bool { return since >= 0 && since < pause }
