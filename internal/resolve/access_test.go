package resolve

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func TestTrustedProxiesAreTheTCPPeers(t *testing.T) {
	parsed := func(words ...string) policy.TrustedProxies {
		var all policy.TrustedProxies
		for _, word := range words {
			proxies, err := parseProxies(word)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, proxies...)
		}
		return all
	}
	for _, c := range []struct {
		proxies policy.TrustedProxies
		peer    string
		want    bool
	}{
		{parsed("10.0.0.0/8"), "10.1.2.3:80", true},
		{parsed("10.1.2.3/8"), "10.9.9.9:80", true},
		{parsed("10.0.0.0/8"), "[::ffff:10.1.2.3]:80", true},
		{parsed("10.0.0.0/8"), "11.1.2.3:80", false},
		{parsed("192.0.2.7", "2001:db8::1"), "192.0.2.7:1", true},
		{parsed("192.0.2.7", "2001:db8::1"), "192.0.2.8:1", false},
		{parsed("192.0.2.7", "2001:db8::1"), "[2001:db8::1]:1", true},
		{parsed("fe80::/10"), "[fe80::1%eth0]:1", true},
		{parsed("private_ranges"), "172.16.5.5:1", true},
		{parsed("private_ranges"), "[::1]:1", true},
		{parsed("private_ranges"), "8.8.8.8:1", false},
		{parsed("0.0.0.0/0"), "@", false},
		{parsed("0.0.0.0/0"), "", false},
		{nil, "127.0.0.1:1", false},
	} {
		if got := c.proxies.Trust(c.peer); got != c.want {
			t.Errorf("%v, %s: got %v", c.proxies, c.peer, got)
		}
	}
}
