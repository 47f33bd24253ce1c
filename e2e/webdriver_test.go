package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// driver sends the commands of WebDriver (https://www.w3.org/TR/webdriver2/) to one
// session of a browser. It returns values in the form of the standard.
type driver interface {
	call(command command, parameters any) (json.RawMessage, error)
}

// command is a WebDriver command. Its value is Marionette's name for it.
type command string

const (
	newSession    command = "NewSession"
	deleteSession command = "DeleteSession"
	navigate      command = "Navigate"
	back          command = "Back"
	getHandles    command = "GetWindowHandles"
	switchTo      command = "SwitchToWindow"
	newWindow     command = "NewWindow"
	closeWindow   command = "CloseWindow"
	executeAsync  command = "ExecuteAsyncScript"
	deleteCookies command = "DeleteAllCookies"
	elementClick  command = "ElementClick"
)

// parameters are the parameters of a command, by name.
type parameters map[string]any

// driverError is the error response to a command.
type driverError struct {
	Code    string `json:"error"`
	Message string `json:"message"`
}

func (e *driverError) Error() string { return e.Code + ": " + e.Message }

// isGone reports whether a command failed because its window is closed.
func isGone(err error) bool {
	answer, ok := errors.AsType[*driverError](err)
	return ok && answer.Code == "no such window"
}

// driverCapabilities are the capabilities that the tests request for a session.
var driverCapabilities = parameters{
	"acceptInsecureCerts": true,
	"timeouts":            parameters{"script": stepTimeout.Milliseconds(), "pageLoad": stepTimeout.Milliseconds()},
}

// drivenProfile implements profile for a browser that is driven by WebDriver.
type drivenProfile struct {
	driver driver
	// spare is a window that the browser opened by itself, if no tab uses it yet.
	spare string
	end   func() error
}

// close implements profile.
func (p *drivenProfile) close() error { return p.end() }

// open implements profile.
func (p *drivenProfile) open() (window, error) {
	if handle := p.spare; handle != "" {
		p.spare = ""
		return &drivenWindow{p.driver, handle}, nil
	}
	value, err := p.driver.call(newWindow, parameters{"type": "tab", "focus": true})
	if err != nil {
		return nil, err
	}
	var opened struct{ Handle string }
	if err := json.Unmarshal(value, &opened); err != nil {
		return nil, err
	}
	return &drivenWindow{p.driver, opened.Handle}, nil
}

// handlesOf returns the handles of the open windows.
func handlesOf(d driver) ([]string, error) {
	value, err := d.call(getHandles, parameters{})
	if err != nil {
		return nil, err
	}
	var handles []string
	return handles, json.Unmarshal(value, &handles)
}

// opened implements profile.
func (p *drivenProfile) opened(_ window, open func()) (window, error) {
	before, err := handlesOf(p.driver)
	if err != nil {
		return nil, err
	}
	open()
	for deadline := time.Now().Add(stepTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		handles, err := handlesOf(p.driver)
		if err != nil {
			return nil, err
		}
		for _, handle := range handles {
			if !slices.Contains(before, handle) {
				return &drivenWindow{p.driver, handle}, nil
			}
		}
	}
	return nil, nil
}

// drivenWindow implements window for a browser that is driven by WebDriver.
type drivenWindow struct {
	driver driver
	handle string
}

// call sends a command to the window.
func (w *drivenWindow) call(command command, parameters any) (json.RawMessage, error) {
	if err := w.switchTo(false); err != nil {
		return nil, err
	}
	return w.driver.call(command, parameters)
}

// switchTo directs the following commands to the window. If focus is set, it also brings the window
// to the front.
func (w *drivenWindow) switchTo(focus bool) error {
	_, err := w.driver.call(switchTo, parameters{"handle": w.handle, "focus": focus})
	return err
}

// goTo implements window.
func (w *drivenWindow) goTo(address string) error {
	_, err := w.call(navigate, parameters{"url": address})
	return err
}

// goBack implements window.
func (w *drivenWindow) goBack(steps int) error {
	for range steps {
		if _, err := w.call(back, parameters{}); err != nil {
			return err
		}
	}
	return nil
}

// click implements window. The click may close the window, and that is no error.
func (w *drivenWindow) click(element string) error {
	id, err := w.element(element)
	for deadline := time.Now().Add(stepTimeout); id == ""; id, err = w.element(element) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the element is not visible: %w", cmp.Or(err, errors.New("it does not exist")))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := w.call(elementClick, parameters{"id": id}); err != nil && !isGone(err) {
		return err
	}
	return nil
}

// element returns the reference of a visible element.
func (w *drivenWindow) element(expression string) (string, error) {
	value, err := w.call(executeAsync, script("const one = "+expression+"; done(one?.checkVisibility() ? one : null)"))
	if err != nil {
		return "", err
	}
	var reference map[string]string
	if err := json.Unmarshal(value, &reference); err != nil {
		return "", err
	}
	for _, id := range reference {
		return id, nil
	}
	return "", nil
}

// evaluate implements window.
func (w *drivenWindow) evaluate(expression string) (json.RawMessage, error) {
	value, err := w.call(executeAsync, script(`(async () => (`+expression+`))().then(
		value => done(JSON.stringify({ value })), error => done(JSON.stringify({ error: String(error) })))`))
	if err != nil {
		return nil, err
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return nil, err
	}
	var outcome struct {
		Value json.RawMessage
		Error string
	}
	if err := json.Unmarshal([]byte(text), &outcome); err != nil {
		return nil, err
	}
	if outcome.Error != "" {
		return nil, errors.New(outcome.Error)
	}
	if outcome.Value == nil { // of undefined
		outcome.Value = json.RawMessage("null")
	}
	return outcome.Value, nil
}

// script runs in the page, and calls done with its result.
func script(text string) parameters {
	return parameters{"script": "const done = arguments[arguments.length - 1]; " + text, "args": []any{}, "sandbox": nil}
}

// toFront implements window.
func (w *drivenWindow) toFront() error { return w.switchTo(true) }

// shut implements window.
func (w *drivenWindow) shut() error {
	_, err := w.call(closeWindow, parameters{})
	return err
}

// isOpen implements window.
func (w *drivenWindow) isOpen() (bool, error) {
	handles, err := handlesOf(w.driver)
	return slices.Contains(handles, w.handle), err
}

// errNoProgram returns an error that names the missing program and its Debian package.
func errNoProgram(name, debian string) error {
	return fmt.Errorf("the browser tests need %s in the PATH; on Debian: apt-get install %s", name, debian)
}
