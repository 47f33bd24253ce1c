package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

// webKit is the one WebKitWebDriver of all tests. Each test starts its own MiniBrowser, WebKitGTK's
// small browser, which saves nothing.
var webKit = &webKitProcess{}

// webKitProcess is a WebKitWebDriver that starts when it is first needed, with a virtual screen
// (Xvfb), because WebKitGTK has no headless mode.
type webKitProcess struct {
	once    sync.Once
	screen  *exec.Cmd
	program *exec.Cmd
	folder  string
	url     string
	err     error
}

func (k *webKitProcess) start() error {
	for _, name := range []string{"WebKitWebDriver", "Xvfb"} {
		if _, err := exec.LookPath(name); err != nil {
			return errNoProgram("WebKitWebDriver and Xvfb", "webkit2gtk-driver xvfb")
		}
	}
	var err error
	if k.folder, err = os.MkdirTemp("", "tollgate-webkit-"); err != nil {
		return err
	}
	display, err := k.startScreen()
	if err != nil {
		return fmt.Errorf("starting Xvfb: %w", err)
	}
	address := porttest.Address()
	k.url = "http://" + address
	k.program = exec.Command("WebKitWebDriver", "--port="+portOf(address))
	k.program.Env = append(os.Environ(), "HOME="+k.folder, "XDG_RUNTIME_DIR="+k.folder, "DISPLAY=:"+display,
		"GDK_BACKEND=x11", "LIBGL_ALWAYS_SOFTWARE=1", "NO_AT_BRIDGE=1", "GSETTINGS_BACKEND=memory")
	if err := k.program.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(stepTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("WebKitWebDriver does not listen at %s", address)
}

// startScreen starts Xvfb on a free display, and returns the display's number.
func (k *webKitProcess) startScreen() (string, error) {
	number, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer number.Close()
	k.screen = exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1600x1200x24", "-nolisten", "tcp")
	k.screen.ExtraFiles = []*os.File{write}
	err = k.screen.Start()
	write.Close()
	if err != nil {
		return "", err
	}
	number.SetReadDeadline(time.Now().Add(stepTimeout))
	text, err := bufio.NewReader(number).ReadString('\n')
	return strings.TrimSpace(text), err
}

func (k *webKitProcess) close() {
	for _, program := range []*exec.Cmd{k.program, k.screen} {
		if program != nil && program.Process != nil {
			program.Process.Kill()
			program.Wait()
		}
	}
	if k.folder != "" {
		os.RemoveAll(k.folder)
	}
}

// newProfile implements browser.
func (k *webKitProcess) newProfile(*person) (profile, error) {
	k.once.Do(func() { k.err = k.start() })
	if k.err != nil {
		return nil, k.err
	}
	d := &httpDriver{url: k.url}
	value, err := d.call(newSession, parameters{"capabilities": parameters{"alwaysMatch": driverCapabilities}})
	if err != nil {
		return nil, err
	}
	var session struct{ SessionID string }
	if err := json.Unmarshal(value, &session); err != nil {
		return nil, err
	}
	d.url += "/session/" + session.SessionID
	p := &drivenProfile{driver: d, end: func() error {
		_, err := d.call(deleteSession, nil)
		return err
	}}
	handles, err := handlesOf(d)
	if err != nil {
		return nil, err
	}
	p.spare = handles[0]
	return p, nil
}

// httpDriver is a session of a WebDriver over HTTP.
type httpDriver struct{ url string }

// httpCommands are the method and path of the commands below the session's address.
var httpCommands = map[command]string{
	newSession:    "POST /session",
	deleteSession: "DELETE ",
	navigate:      "POST /url",
	back:          "POST /back",
	getHandles:    "GET /window/handles",
	switchTo:      "POST /window",
	newWindow:     "POST /window/new",
	closeWindow:   "DELETE /window",
	executeAsync:  "POST /execute/async",
	deleteCookies: "DELETE /cookie",
	elementClick:  "POST /element/{id}/click",
}

// call implements driver.
func (d *httpDriver) call(command command, body any) (json.RawMessage, error) {
	method, path, _ := strings.Cut(httpCommands[command], " ")
	if given, ok := body.(parameters); ok {
		if id, ok := given["id"].(string); ok {
			path = strings.ReplaceAll(path, "{id}", id)
		}
	}
	text := []byte{}
	if method == http.MethodPost {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequest(method, d.url+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Timeout: 2 * stepTimeout}).Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return answer.Value, nil
	}
	failure := &driverError{}
	if err := json.Unmarshal(answer.Value, failure); err != nil {
		return nil, err
	}
	return nil, failure
}
