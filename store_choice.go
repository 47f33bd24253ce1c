package tollgate

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/config"
)

// storeNamespace is the namespace of the session stores' modules.
const storeNamespace = "tollgate.stores"

// storeNames are the session stores that this program was built with.
func storeNames() []string {
	var names []string
	for _, info := range caddy.GetModules(storeNamespace) {
		names = append(names, info.ID.Name())
	}
	return names
}

// checkStoreModule checks that a store in JSON names its module. Caddy's own error would
// print every value of the store, and one of them may be a password.
func checkStoreModule(store json.RawMessage) error {
	var named struct{ Module json.RawMessage }
	var name string
	err := json.Unmarshal(store, &named)
	if err == nil {
		err = json.Unmarshal(named.Module, &name)
	}
	if names := storeNames(); err != nil || !slices.Contains(names, name) {
		return config.Errorf("session.store.module", "must be one of %s; a store is an object, for example {\"module\": \"storage\"}", strings.Join(names, ", "))
	}
	return nil
}
