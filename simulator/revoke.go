package simulator

import "net/http"

// revoke is RFC 7009. The provider documents no such endpoint; clients that
// can revoke need one to try it against. Any token of a login ends the whole
// login, and the answer for a token that is not known is 200 as well: the
// client's purpose is reached either way.
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
