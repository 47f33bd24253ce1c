package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/pflag"
)

// configFlags name a configuration and its environment. They are the flags of `caddy run`.
type configFlags struct {
	config, adapter string
	envFiles        []string
}

func (f *configFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVarP(&f.config, "config", "c", "", "the configuration file (default: Caddyfile in the current folder)")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "the adapter of that file, such as caddyfile")
	flags.StringArrayVar(&f.envFiles, "envfile", nil, "a file with environment variables; may be repeated")
}

// load sets the environment and returns the configuration in Caddy's JSON.
func (f *configFlags) load() ([]byte, error) {
	for _, file := range f.envFiles {
		if err := loadEnvFile(file); err != nil {
			return nil, fmt.Errorf("--envfile: %w", err)
		}
	}
	config, _, _, err := caddycmd.LoadConfig(f.config, f.adapter)
	if err != nil {
		return nil, err
	}
	if len(config) == 0 {
		return nil, errors.New("there is no Caddyfile in this folder: name the configuration with --config")
	}
	return caddy.RemoveMetaFields(config), nil
}

// loadEnvFile sets variables as `caddy run --envfile` does: those that are set already stay.
func loadEnvFile(path string) error {
	file, err := os.Open(path) //nolint:gosec // the person who runs this names the file
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	variables, err := parseEnvFile(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, v := range variables {
		if _, isSet := os.LookupEnv(v.name); isSet {
			continue
		}
		if err := os.Setenv(v.name, v.value); err != nil {
			return err
		}
	}
	// The folder of the storage depends on the environment.
	caddy.DefaultStorage = &certmagic.FileStorage{Path: caddy.AppDataDir()}
	return nil
}

// parseEnvFile reads what register-app and keygen write: one variable in a line, as
// NAME=value, whose value may be in quotes. Caddy takes # for the beginning of a comment.
func parseEnvFile(r io.Reader) (variables []envVariable, err error) {
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("line %d is not NAME=value", number)
		}
		value, _, _ = strings.Cut(value, "#")
		value = strings.TrimRight(value, " \t")
		if len(value) > 1 && (value[0] == '"' || value[0] == '\'') {
			if value[len(value)-1] != value[0] {
				return nil, fmt.Errorf("line %d begins a value in quotes that does not end in the same line", number)
			}
			value = value[1 : len(value)-1]
		}
		variables = append(variables, envVariable{name, value})
	}
	return variables, lines.Err()
}
