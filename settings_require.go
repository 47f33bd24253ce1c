package tollgate

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
)

func (s *settings) resolveRequire(r *resolver, blocks []*Require) {
	if len(blocks) > maxBlocks {
		r.fail("require", "%d blocks are too many: at most %d", len(blocks), maxBlocks)
	}
	for i, block := range blocks {
		setting := fmt.Sprintf("require[%d]", i)
		if block == nil {
			block = &Require{}
		}
		if block.Balance == "" && len(block.EmailDomain) == 0 && len(block.User) == 0 {
			r.fail(setting, "has no rule: name a balance, an email_domain or a user")
		}
		s.required = append(s.required, r.patterns(setting+".paths", block.Paths))
		s.rules = append(s.rules, rule{
			balance: resolveAmount(r, setting+".balance", block.Balance),
			domains: resolveDomains(r, setting+".email_domain", block.EmailDomain),
			users:   r.texts(setting+".user", block.User),
		})
	}
}

// plainAmount is how an operator writes an amount: the currency is the provider's.
var plainAmount = regexp.MustCompile(`^[0-9]{1,100}(\.[0-9]{1,100})?$`)

func resolveAmount(r *resolver, setting, raw string) *amount {
	text := r.text(setting, raw, "")
	if text == "" {
		return nil
	}
	if !plainAmount.MatchString(text) {
		r.check(setting, raw, fmt.Errorf("%q is not a plain amount such as 0.50, and not negative", text))
	}
	value, _ := decimal.Parse(text)
	return &amount{text: text, value: value, near: value.Double()}
}

func resolveDomains(r *resolver, setting string, raw []string) []string {
	var domains []string
	for i, text := range r.texts(setting, raw) {
		if strings.ContainsAny(text, "@*/: \t") || text[0] == '.' || strings.HasSuffix(text, ".") {
			r.check(setting, raw[i], fmt.Errorf("%q is not a domain such as example.com", text))
		}
		domains = append(domains, lowerASCII(text))
	}
	return domains
}
