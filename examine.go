package tollgate

import (
	"github.com/caddy-tollgate/tollgate/internal/doctor"
	"github.com/caddy-tollgate/tollgate/internal/watch"
)

// Examine implements doctor.Patient.
func (h *Handler) Examine() *doctor.Site {
	return &doctor.Site{
		Site:             h.place,
		Client:           h.settings.client,
		Endpoints:        h.settings.endpoints,
		Secrets:          h.settings.secrets,
		SecretTexts:      h.Secret,
		ClientSecretText: h.Provider.ClientSecret,
		StoreName:        h.storeName,
		Store:            watch.Unwrap(h.store),
		Storage:          h.ctx.Storage(),
		Lifetime:         h.settings.lifetime,
		TrustedProxies:   h.settings.forwarding.Proxies,
		SetIdentity:      h.settings.identity.SetEmpty,
	}
}

var _ doctor.Patient = (*Handler)(nil)
