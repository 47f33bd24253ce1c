package simulator

import "net/http"

// userInfoAnswer has the fields of the provider's document, in the same order.
// A pointer is nil, and its field is left out, if the scope does not include
// it. An empty e-mail address is not left out.
type userInfoAnswer struct {
	ID               int64   `json:"id"`
	Username         *string `json:"username,omitempty"`
	Email            *string `json:"email,omitempty"`
	Quota            *int64  `json:"quota,omitempty"`
	UsedQuota        *int64  `json:"used_quota,omitempty"`
	BalanceFormatted *string `json:"balance_formatted,omitempty"`
	CreatedTime      int64   `json:"created_time"`
	Status           int     `json:"status"`
}

func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	user, scope, ok := p.bearer(w, r)
	if !ok {
		return
	}
	writeJSON(w, http.StatusOK, describe(user, scope))
}

func describe(user User, scope string) userInfoAnswer {
	answer := userInfoAnswer{
		ID:          user.ID,
		CreatedTime: user.CreatedTime,
		Status:      user.Status,
	}
	if hasScope(scope, scopeProfile) {
		answer.Username, answer.Email = &user.Username, &user.Email
	}
	if hasScope(scope, scopeBalance) {
		quota, used, balance := user.Quota(), user.UsedQuota(), user.Balance()
		answer.Quota, answer.UsedQuota, answer.BalanceFormatted = &quota, &used, &balance
	}
	return answer
}

// bearer finds the user of the access token. If it returns false, it has
// written a 401. The challenge names an error only if the request has a token
// (RFC 6750 section 3.1).
func (p *Provider) bearer(w http.ResponseWriter, r *http.Request) (user User, scope string, ok bool) {
	const realm = `Bearer realm="aihubmix simulator"`
	token, sent := bearerToken(r)
	if !sent {
		refuseBearer(w, realm, "the access token is missing")
		return User{}, "", false
	}
	id, scope, valid := p.grants.look(token)
	user, known := p.users.byID(id)
	if !valid || !known {
		refuseBearer(w, realm+`, error="invalid_token"`, "the access token is unknown, expired or revoked")
		return User{}, "", false
	}
	return user, scope, true
}

func refuseBearer(w http.ResponseWriter, challenge, description string) {
	w.Header().Set("WWW-Authenticate", challenge)
	writeJSON(w, http.StatusUnauthorized, map[string]string{
		"error":             "invalid_token",
		"error_description": description,
	})
}
