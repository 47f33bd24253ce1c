package tollgate

import (
	"cmp"
	"context"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/clock"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
	"github.com/caddy-tollgate/tollgate/internal/secretfiles"
)

// newKeySource returns the source of the site's keys.
func (h *Handler) newKeySource(storage keys.SecretStorage) (*keys.Source, error) {
	source, err := keys.NewSource(h.settings.secrets, storage, h.settings.client.Config.ClientID, h.settings.redirectURI, h.noteOldSecret)
	if err != nil {
		return nil, config.Errorf("secret", "%w", err)
	}
	return source, nil
}

// noteOldSecret counts and writes down that a previous secret is still in use, so that an
// operator sees when it can be removed. Every request of a browser may cause it, so the line
// is rare.
func (h *Handler) noteOldSecret() {
	h.metrics.CountOldSecretUse()
	if uses, due := h.state.oldSecretUses.Next(h.now()); due {
		h.logger.Info("a previous secret is still in use: browsers send cookies that it sealed", zap.Int("cookies", uses))
	}
}

// watchSecrets puts secrets from files into use when the files change. The stores have
// secrets of their own.
func (h *Handler) watchSecrets(site clock.Clock) {
	h.secretFiles = secretfiles.Watch(cmp.Or(site.SecretsInterval(), secretfiles.Interval), secretLog{h.logger}, append(h.storeSecrets, h.ownSecrets()...)...)
}

// ownSecrets returns the options of the site whose secrets come from files.
func (h *Handler) ownSecrets() (secrets []secretfiles.Secret) {
	if files := config.FilesIn(h.Secret...); len(files) > 0 {
		secrets = append(secrets, secretfiles.Secret{Option: "secret", Files: files, Read: func() (secretfiles.Use, error) {
			r := config.NewRereader()
			ring := resolve.Secrets(r, h.Secret)
			return func(context.Context) (bool, error) { return h.keys.Replace(ring) }, r.Err
		}})
	}
	if files := config.FilesIn(h.Provider.ClientSecret); len(files) > 0 {
		secrets = append(secrets, secretfiles.Secret{Option: "provider.client_secret", Files: files, Read: func() (secretfiles.Use, error) {
			r := config.NewRereader()
			secret := resolve.ClientSecret(r, h.Provider.ClientSecret)
			return func(context.Context) (bool, error) { return h.settings.client.SetClientSecret(secret), nil }, r.Err
		}})
	}
	return secrets
}

// secretLog implements secretfiles.Log.
type secretLog struct{ logger *zap.Logger }

// Replaced implements secretfiles.Log.
func (l secretLog) Replaced(option string) {
	l.logger.Info("secret replaced: its file has changed, and the new secret is in use", zap.String("option", option))
}

// Kept implements secretfiles.Log.
func (l secretLog) Kept(option string, err error) {
	l.logger.Error("secret not replaced: its file has changed, but cannot be used; the previous secret stays in use, and the file is read again",
		zap.String("option", option), zap.Error(err))
}
