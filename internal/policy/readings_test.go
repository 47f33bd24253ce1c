package policy

import (
	"net/url"
	"slices"
	"testing"
)

func TestOddPathsHaveSeveralReadings(t *testing.T) {
	for _, c := range []struct {
		target string
		want   []string
	}{
		{"//x/pay", []string{"/x/pay", "/pay"}},
		{"///x/pay", []string{"/x/pay", "/pay"}},
		{"//x", []string{"/x", "/"}},
		{"//u@x:80/team", []string{"/team"}},
		{"//u@x:80/team/", []string{"/team/"}},
		{"/%2fx/pay", []string{"/pay"}},
		{"/%5cx/pay", []string{"/pay"}},
		{"/%5c%5cx%5cpay", []string{"/pay"}},
		{"/%252fx/pay", []string{"/pay"}},
		{"/;a/x/pay", []string{"/pay"}},
		{"//x//pay", []string{"//pay", "/pay"}},
		{"/a/%c0%ae%c0%ae/b", []string{"/b"}},
		{"/a%c0%afb", []string{"/a/b"}},
		{"/a%c1%9cb", []string{"/a/b"}},
		{"/a%e0%80%afb", []string{"/a/b"}},
		{"/a%e0%81%9cb", []string{"/a/b"}},
		{"/a%f0%80%80%afb", []string{"/a/b"}},
		{"/a%25c0%25afb", []string{"/a/b"}},
		{"/public/%25/%252e%252e/%252e%252e/admin", []string{"/admin"}},
		{"/public/%25zz/%252e%252e/%252e%252e/admin", []string{"/admin"}},
		{"/%2561dmin/%25", []string{"/admin/%"}},
		{"/%2561dmin/%252", []string{"/admin/%2"}},
		{"/adm%C4%B1n", []string{"/admin"}},
		{"/adm%C4%B1n%252fpa%C5%BF%C5%BF", []string{"/admin/pass"}},
		{"/%25%2561dmin", []string{"/%admin"}},
	} {
		u, err := url.ParseRequestURI(c.target)
		if err != nil {
			t.Fatal(err)
		}
		forms, complete := Readings(u)
		if !complete || isOrdinary(u) {
			t.Errorf("%s: complete is %t, ordinary is %t, want true and false", c.target, complete, isOrdinary(u))
		}
		for _, form := range c.want {
			if !slices.Contains(forms, form) {
				t.Errorf("%s: %q is not among %q", c.target, form, forms)
			}
		}
	}
}

func TestPathsWithControlCharactersHaveNoReading(t *testing.T) {
	for _, target := range []string{
		"/admin%0A", "/admin%0D%0A", "/a%00", "/a/.%00./b", "/a%7F", "/a%01b", "/%09/x", "/admin%250A", "/a%25250A", "/a%c0%80", "/a%c0%8a", "/a;%0A",
		"/admin%C2%85", "/admin%E2%80%A8", "/admin%E2%80%A9", "/admin%25E2%2580%25A9",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		if _, complete := Readings(u); complete {
			t.Errorf("%s: it can be read", target)
		}
	}
}

func TestPathsInManyScriptsAreOrdinary(t *testing.T) {
	for _, target := range []string{"/caf%C3%A9", "/%E4%BD%A0%E5%A5%BD", "/%E0%A4%A8", "/%F0%9F%98%80", "/a%20b", "/%C0-propos", "/a~b:c@d,e", "/%C4%B0%C4%B2", "/%E2%80%9Ca%E2%80%9D"} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		u.RawPath = ""
		if forms, complete := Readings(u); len(forms) != 1 || !complete {
			t.Errorf("%s: got the readings %q, complete %t", target, forms, complete)
		}
	}
}
