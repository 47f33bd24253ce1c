package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// firefox is the one Firefox of all tests.
var firefox = &firefoxProcess{}

// firefoxProcess is a Firefox that starts when it is first needed. All tests share its profile. After
// each test its windows are closed and its cookies are removed. Other storage of a site does no
// harm, because each test has an origin of its own.
type firefoxProcess struct {
	once    sync.Once
	program *exec.Cmd
	folder  string
	driver  *marionette
	err     error
}

// firefoxSettings make Firefox block popups as it does for people, although Marionette allows them
// by default. They also prevent requests to Mozilla.
const firefoxSettings = `user_pref("marionette.port", 0);
user_pref("dom.disable_open_during_load", true);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("app.normandy.enabled", false);
user_pref("toolkit.telemetry.server", "");
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("extensions.update.enabled", false);
`

// start runs Firefox with an empty profile. It writes the port of Marionette, its
// WebDriver, into a file there.
func (f *firefoxProcess) start() error {
	path, err := exec.LookPath("firefox-esr")
	if err != nil {
		if path, err = exec.LookPath("firefox"); err != nil {
			return errNoProgram("Firefox, as firefox-esr or firefox", "firefox-esr")
		}
	}
	if f.folder, err = os.MkdirTemp("", "tollgate-firefox-"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(f.folder, "user.js"), []byte(firefoxSettings), 0o600); err != nil {
		return err
	}
	f.program = exec.Command(path, "--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile", f.folder)
	f.program.Env = append(os.Environ(), "HOME="+f.folder, "MOZ_HEADLESS_WIDTH=1600", "MOZ_HEADLESS_HEIGHT=1200")
	if err := f.program.Start(); err != nil {
		return err
	}
	port, err := awaitFile(filepath.Join(f.folder, "MarionetteActivePort"))
	if err != nil {
		return fmt.Errorf("starting %s: %w", path, err)
	}
	if f.driver, err = dialMarionette("127.0.0.1:" + port); err != nil {
		return err
	}
	_, err = f.driver.call(newSession, driverCapabilities)
	return err
}

// awaitFile waits until a file is not empty, and returns its content.
func awaitFile(name string) (string, error) {
	for deadline := time.Now().Add(stepTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
			return strings.TrimSpace(string(text)), nil
		}
	}
	return "", context.DeadlineExceeded
}

func (f *firefoxProcess) close() {
	if f.program != nil && f.program.Process != nil {
		f.program.Process.Kill()
		f.program.Wait()
	}
	if f.folder != "" {
		os.RemoveAll(f.folder)
	}
}

// newProfile implements browser.
func (f *firefoxProcess) newProfile(*person) (profile, error) {
	f.once.Do(func() { f.err = f.start() })
	if f.err != nil {
		return nil, f.err
	}
	return &drivenProfile{driver: f.driver, end: f.clean}, nil
}

// clean closes the windows of a test, and removes its cookies. One window stays, or
// Firefox would end.
func (f *firefoxProcess) clean() error {
	value, err := f.driver.call(newWindow, parameters{"type": "window", "focus": true})
	if err != nil {
		return err
	}
	var last struct{ Handle string }
	if err := json.Unmarshal(value, &last); err != nil {
		return err
	}
	handles, err := handlesOf(f.driver)
	if err != nil {
		return err
	}
	for _, handle := range handles {
		if w := (&drivenWindow{f.driver, handle}); handle != last.Handle {
			if err := w.shut(); err != nil && !isGone(err) {
				return err
			}
		}
	}
	if err := (&drivenWindow{f.driver, last.Handle}).switchTo(true); err != nil {
		return err
	}
	return f.driver.inChrome("Services.cookies.removeAll()")
}

// marionette is a connection to Firefox's WebDriver
// (https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html): each
// message is its length, a colon, and a JSON array.
type marionette struct {
	net.Conn
	reader *bufio.Reader
	last   int // number of the last command
}

func dialMarionette(address string) (*marionette, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	m := &marionette{Conn: conn, reader: bufio.NewReader(conn)}
	_, err = m.read() // the greeting
	return m, err
}

// read reads one message.
func (m *marionette) read() ([]byte, error) {
	length, err := m.reader.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
	if err != nil {
		return nil, err
	}
	text := make([]byte, n)
	_, err = io.ReadFull(m.reader, text)
	return text, err
}

// call implements driver.
func (m *marionette) call(command command, parameters any) (json.RawMessage, error) {
	return m.send("WebDriver:"+string(command), parameters)
}

// send sends a command and reads its response. Responses arrive in the order of the commands.
func (m *marionette) send(name string, parameters any) (json.RawMessage, error) {
	m.last++
	text, err := json.Marshal([]any{0, m.last, name, parameters})
	if err != nil {
		return nil, err
	}
	m.SetDeadline(time.Now().Add(2 * stepTimeout))
	if _, err := fmt.Fprintf(m, "%d:%s", len(text), text); err != nil {
		return nil, err
	}
	answer, err := m.read()
	if err != nil {
		return nil, err
	}
	var failure *driverError
	var value json.RawMessage
	if err := json.Unmarshal(answer, &[]any{new(int), new(int), &failure, &value}); err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, failure
	}
	var wrapped map[string]json.RawMessage // where the standard has a plain value
	if json.Unmarshal(value, &wrapped) == nil && len(wrapped) == 1 && wrapped["value"] != nil {
		return wrapped["value"], nil
	}
	return value, nil
}

// inChrome runs a script with the privileges of Firefox's own interface ("chrome").
func (m *marionette) inChrome(text string) error {
	if _, err := m.send("Marionette:SetContext", parameters{"value": "chrome"}); err != nil {
		return err
	}
	if _, err := m.send("WebDriver:ExecuteScript", parameters{"script": text, "args": []any{}}); err != nil {
		return err
	}
	_, err := m.send("Marionette:SetContext", parameters{"value": "content"})
	return err
}
