// Command caddy is stock Caddy with the tollgate module built in.
package main

import (
	_ "time/tzdata" // time zones on machines that have no zone database

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	// Stock Caddy's modules, and ours.
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-tollgate/tollgate"
)

func main() {
	caddycmd.Main()
}
