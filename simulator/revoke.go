package simulator

import "net/http"

// revoke implements RFC 7009. The provider's document has no such endpoint, but
// clients that can revoke need one for their tests. Any token of a login ends
// the whole login. The status for an unknown token is 200, too, because that
// token cannot be used any more either.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) {
	if err := p.revokeToken(r); err != nil {
		writeOAuthError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (p *Provider) revokeToken(r *http.Request) error {
	form, err := oauthForm(r)
	if err != nil {
		return err
	}
	client, err := p.authenticate(r, form)
	if err != nil {
		return err
	}
	if form.Get("token") == "" {
		return invalidRequest("token is missing")
	}
	return p.grants.revoke(client, form.Get("token"))
}

func (t *grantTable) revoke(client Client, token string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok := t.familyOf(token)
	if !ok {
		return nil
	}
	if f.clientID != client.ID {
		return invalidGrant("the token belongs to another client")
	}
	f.revoked = true
	return nil
}
