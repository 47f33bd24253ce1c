//go:build !unix

package main

import "time"

// cpuTime is not known here; the report leaves its column empty.
func cpuTime() (time.Duration, error) { return 0, nil }
