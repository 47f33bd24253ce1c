package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// keepCredentials writes the env file. If that fails, it saves the credentials elsewhere,
// because the provider does not show the secret again.
func keepCredentials(file *envFile, app oauth.RegisteredApp, redirectURI string) error {
	content, err := envFileContent([]envVariable{
		{"OAUTH_CLIENT_ID", app.ClientID},
		{"OAUTH_CLIENT_SECRET", app.ClientSecret},
		{"OAUTH_REDIRECT_URI", redirectURI},
	})
	if err == nil {
		err = file.write(content)
	}
	if err == nil {
		return nil
	}
	app.RedirectURI = redirectURI
	saved, saveErr := saveCredentials(app)
	if saveErr != nil {
		return fmt.Errorf("the application is registered, but its client secret is lost: %w; %w. Make a new secret in the provider's console, or delete the application there and register it again", err, saveErr)
	}
	return fmt.Errorf("the application is registered, but the env file could not be written: %w. Its client id and client secret are in %s, which only you can read: move them to a safe place, and do not register again", err, saved)
}

// saveCredentials writes a JSON file in the system's temporary folder. JSON can contain
// characters that an env file cannot.
func saveCredentials(app oauth.RegisteredApp) (string, error) {
	content, err := json.MarshalIndent(map[string]string{
		"client_id": app.ClientID, "client_secret": app.ClientSecret, "redirect_uri": app.RedirectURI,
	}, "", "\t")
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", "tollgate-credentials-*.json") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = file.Write(append(content, '\n'))
	return file.Name(), errors.Join(err, file.Close())
}

type envVariable struct{ name, value string }

// envFileContent writes variables so that Caddy's --envfile, systemd's EnvironmentFile and a
// shell read the same values. Docker's --env-file also does, as long as no value needs quotes.
func envFileContent(variables []envVariable) (string, error) {
	var b strings.Builder
	for _, v := range variables {
		value := v.value
		if !isPlainText(value) {
			// Caddy treats # as the start of a comment, even inside quotes.
			for _, r := range value {
				if r < ' ' || r > '~' || strings.ContainsRune(`'\#`, r) {
					return "", fmt.Errorf("%s contains a character that is not possible in an env file", v.name)
				}
			}
			value = "'" + value + "'"
		}
		b.WriteString(v.name + "=" + value + "\n")
	}
	return b.String(), nil
}

// envFile is the file for the credentials. It is opened before the request to the provider, so
// that an unwritable folder is found in time.
type envFile struct {
	path string
	file *os.File
	// replaces is true if file is a temporary file next to path, and replaces path when it is
	// complete.
	replaces bool
	done     bool
}

// checkEnvFile returns an error if the path must not be written.
func checkEnvFile(path string, force bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--env-file: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("--env-file: %s is not a regular file", path)
	case !force:
		return errEnvFileExists(path)
	}
	return nil
}

func errEnvFileExists(path string) error {
	return fmt.Errorf("--env-file: %s exists: its secret may be in use. Name another file, or replace it with --force", path)
}

func reserveEnvFile(path string, force bool) (*envFile, error) {
	f := &envFile{path: path, replaces: force}
	var err error
	if force {
		f.file, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	} else {
		f.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the person who runs this names the file
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, errEnvFileExists(path)
	}
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	return f, nil
}

func (f *envFile) write(content string) error {
	_, err := f.file.WriteString(content)
	if err == nil {
		err = f.file.Sync()
	}
	if err = errors.Join(err, f.file.Close()); err != nil {
		return err
	}
	if f.replaces {
		if err := os.Rename(f.file.Name(), f.path); err != nil {
			return err
		}
	}
	f.done = true
	return nil
}

// discard removes the file if it was not written.
func (f *envFile) discard() {
	if !f.done {
		_ = f.file.Close()
		_ = os.Remove(f.file.Name())
	}
}
