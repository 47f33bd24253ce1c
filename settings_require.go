package tollgate

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func (s *settings) resolveRequire(r *config.Resolver, blocks []*Require) {
	if len(blocks) > policy.MaxBlocks {
		r.Fail("require", "%d blocks are too many: at most %d", len(blocks), policy.MaxBlocks)
	}
	for i, block := range blocks {
		setting := fmt.Sprintf("require[%d]", i)
		if block == nil {
			block = &Require{}
		}
		if block.Balance == "" && len(block.EmailDomain) == 0 && len(block.User) == 0 {
			r.Fail(setting, "has no rule: name a balance, an email_domain or a user")
		}
		s.required = append(s.required, r.Patterns(setting+".paths", block.Paths))
		s.rules = append(s.rules, policy.Rule{
			Balance: resolveAmount(r, setting+".balance", block.Balance),
			Domains: resolveDomains(r, setting+".email_domain", block.EmailDomain),
			Users:   r.Texts(setting+".user", block.User),
		})
	}
}

// plainAmount is how an operator writes an amount: the currency is the provider's.
var plainAmount = regexp.MustCompile(`^[0-9]{1,100}(\.[0-9]{1,100})?$`)

func resolveAmount(r *config.Resolver, setting, raw string) *account.Amount {
	text := r.Text(setting, raw, "")
	if text == "" {
		return nil
	}
	if !plainAmount.MatchString(text) {
		r.Check(setting, raw, fmt.Errorf("%q is not a plain amount such as 0.50, and not negative", text))
	}
	value, _ := decimal.Parse(text)
	return &account.Amount{Text: text, Value: value, Near: value.Double()}
}

func resolveDomains(r *config.Resolver, setting string, raw []string) []string {
	var domains []string
	for i, text := range r.Texts(setting, raw) {
		if strings.ContainsAny(text, "@*/: \t") || text[0] == '.' || strings.HasSuffix(text, ".") {
			r.Check(setting, raw[i], fmt.Errorf("%q is not a domain such as example.com", text))
		}
		domains = append(domains, policy.LowerASCII(text))
	}
	return domains
}
