package doctor

import (
	"maps"
	"slices"
)

// document is a JSON object of a configuration.
type document = map[string]any

// reverseProxies are the reverse_proxy handlers of a server, wherever they are in its routes.
func (c *Configuration) reverseProxies(server string) (found []document) {
	eachHandler(serverIn(c.raw, server), func(handler document) {
		if handler["handler"] == "reverse_proxy" {
			found = append(found, handler)
		}
	})
	return found
}

func serversOf(config document) document {
	apps, _ := config["apps"].(document)
	httpApp, _ := apps["http"].(document)
	servers, _ := httpApp["servers"].(document)
	return servers
}

func serverIn(config document, name string) document {
	server, _ := serversOf(config)[name].(document)
	return server
}

// keepOnly removes the other servers, whose modules need not be loaded.
func keepOnly(config document, name string) {
	servers := serversOf(config)
	for other := range servers {
		if other != name {
			delete(servers, other)
		}
	}
}

// eachHandler calls do for each HTTP handler below a value of the configuration.
func eachHandler(value any, do func(document)) {
	eachObject(value, func(object document) {
		if _, isHandler := object["handler"].(string); isHandler {
			do(object)
		}
	})
}

// eachObject calls do for each JSON object below a value.
func eachObject(value any, do func(document)) {
	switch v := value.(type) {
	case document:
		do(v)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			eachObject(v[name], do)
		}
	case []any:
		for _, each := range v {
			eachObject(each, do)
		}
	}
}

// member is a JSON object in an object. It is added if it is missing.
func member(of document, name string) document {
	found, ok := of[name].(document)
	if !ok {
		found = document{}
		of[name] = found
	}
	return found
}
