package command

import (
	"regexp"
	"runtime/debug"
	"testing"
)

func TestVersionNamesTollgateCaddyAndGo(t *testing.T) {
	got := commands.Run("version")
	if got.Err != nil || got.Errs != "" || !regexp.MustCompile(`^tollgate \S+\ncaddy \S+\ngo1\S+ \w+/\w+\n$`).MatchString(got.Out) {
		t.Errorf("got %q, %q, %v", got.Out, got.Errs, got.Err)
	}
}

func TestOwnVersionPrefersTheReleaseToTheBuild(t *testing.T) {
	other := &debug.Module{Path: "example.com/other", Version: "v9.9.9"}
	for _, c := range []struct {
		name, released string
		build          *debug.BuildInfo
		want           string
	}{
		{"a release", "0.1.0", &debug.BuildInfo{Main: debug.Module{Path: modulePath, Version: "v0.0.9"}}, "0.1.0"},
		{"cmd/caddy of a checkout", "", &debug.BuildInfo{Main: debug.Module{Path: modulePath, Version: "v0.1.1-0.20260601-abc"}, Deps: []*debug.Module{other}}, "v0.1.1-0.20260601-abc"},
		{"xcaddy", "", &debug.BuildInfo{Main: debug.Module{Path: "caddy", Version: "(devel)"}, Deps: []*debug.Module{other, {Path: modulePath, Version: "v0.1.0"}}}, "v0.1.0"},
		{"xcaddy with a fork", "", &debug.BuildInfo{Deps: []*debug.Module{{Path: modulePath, Version: "v0.1.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v0.1.1"}}}}, "v0.1.1"},
		{"xcaddy with a folder", "", &debug.BuildInfo{Deps: []*debug.Module{{Path: modulePath, Version: "v0.1.0", Replace: &debug.Module{Path: "../tollgate"}}}}, "(devel)"},
		{"no tollgate named", "", &debug.BuildInfo{Main: *other}, "(devel)"},
		{"no build information", "", nil, "unknown"},
	} {
		if got := ownVersion(c.released, c.build); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
