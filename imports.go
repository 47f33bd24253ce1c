package tollgate

import (
	// `caddy tollgate …`, and the session stores that a configuration can name.
	_ "github.com/caddy-tollgate/tollgate/internal/command"
	_ "github.com/caddy-tollgate/tollgate/stores/cookie"
	_ "github.com/caddy-tollgate/tollgate/stores/redis"
	_ "github.com/caddy-tollgate/tollgate/stores/storage"
)
