//go:build !unix

package main

import "time"

// cpuTime is unknown on this system. Its column in the report is empty.
func cpuTime() (time.Duration, error) { return 0, nil }
