package simulator

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseFault reads a fault in the syntax of the command line: an endpoint, an
// equals sign, and parts separated by semicolons.
//
//	token=503                  status 503, for both grants
//	token=500;times:3          three failures, then normal responses
//	userinfo=delay:2s          the real response, 2 seconds late
//	refresh=late:2s            rotate at once, send the response 2 seconds later
//	refresh=cut;after-work     rotate, then close the connection without a byte
//	refresh=half               rotate, send half of the response
//	exchange=hang              send no response
//	userinfo=endless           a body without end
//	userinfo=503;probability:0.2
//	userinfo=header:Retry-After: 5
//	authorize=header:Cross-Origin-Opener-Policy: same-origin    cut popups off
//	userinfo=type:text/html    the real response with a wrong Content-Type
//	token=400;body:{"error":"invalid_grant"}
//
// body must be the last part: it extends to the end, with any semicolons.
func ParseFault(text string) (Endpoint, Fault, error) {
	name, parts, ok := strings.Cut(text, "=")
	if !ok {
		return "", Fault{}, fmt.Errorf("fault %q: want endpoint=fault, for example token=503", text)
	}
	endpoint := Endpoint(strings.TrimSpace(name))
	if !slices.Contains(Endpoints(), endpoint) {
		return "", Fault{}, fmt.Errorf("fault %q: unknown endpoint %q, want one of %v", text, endpoint, Endpoints())
	}
	var fault Fault
	for more := true; more; {
		var part string
		if body, is := strings.CutPrefix(strings.TrimLeft(parts, " "), "body:"); is {
			part, more = "body:"+body, false
		} else {
			part, parts, more = strings.Cut(parts, ";")
		}
		if err := fault.parsePart(part); err != nil {
			return "", Fault{}, fmt.Errorf("fault %q: %w", text, err)
		}
	}
	if err := fault.check(); err != nil {
		return "", Fault{}, fmt.Errorf("fault %q: %w", text, err)
	}
	return endpoint, fault, nil
}

// parsePart reads one part.
func (f *Fault) parsePart(part string) (err error) {
	word, value, hasValue := strings.Cut(part, ":")
	word = strings.TrimSpace(word)
	if word != "body" {
		value = strings.TrimSpace(value)
	}
	if isFlag := f.setFlag(word); isFlag {
		if hasValue {
			return fmt.Errorf("%s takes no value", word)
		}
		return nil
	}
	switch word {
	case "":
		return errors.New("contains an empty part; write a status, cut, half, hang, endless, delay:2s, …")
	case "status":
		f.Status, err = parseStatus(value)
	case "body":
		f.Body = value
		if value == "" {
			err = errors.New("body: is empty; to send no body, write the status 204")
		}
	case "type":
		f.ContentType = value
		if _, _, problem := mime.ParseMediaType(value); problem != nil {
			err = fmt.Errorf("type:%s is not a media type; write for example type:text/html", value)
		}
	case "header":
		err = f.parseHeader(value)
	case "delay", "late":
		f.DelayAfterWork = word == "late"
		f.Delay, err = parseDelay(word, value)
	case "times":
		f.Times, err = parseTimes(value)
	case "probability":
		f.Probability, err = parseProbability(value)
	default:
		if hasValue || strings.Trim(word, "0123456789") != "" {
			return fmt.Errorf("unknown word %q", word)
		}
		f.Status, err = parseStatus(word)
	}
	return err
}

// setFlag sets the flag with this name. It returns false if there is none.
func (f *Fault) setFlag(word string) bool {
	switch word {
	case "cut":
		f.Cut = CutBeforeAnswer
	case "half":
		f.Cut = CutHalf
	case "hang":
		f.Hang = true
	case "endless":
		f.Endless = true
	case "after-work":
		f.AfterWork = true
	default:
		return false
	}
	return true
}

// check refuses combinations of which a part would have no effect.
func (f *Fault) check() error {
	var ways []string
	for _, way := range []struct {
		name string
		set  bool
	}{
		{"hang", f.Hang},
		{"cut", f.Cut == CutBeforeAnswer},
		{"half", f.Cut == CutHalf},
		{"endless", f.Endless},
	} {
		if way.set {
			ways = append(ways, way.name)
		}
	}
	if len(ways) > 1 {
		return fmt.Errorf("%s cannot be combined; remove all but one", strings.Join(ways, " and "))
	}
	if f.AfterWork && f.sendsRealAnswer() {
		return errors.New("after-work needs a failure, for example 503 or cut")
	}
	return nil
}

func parseStatus(text string) (int, error) {
	status, err := strconv.Atoi(text)
	if err != nil || status < 200 || status > 599 {
		return 0, fmt.Errorf("status %q is not a number from 200 to 599", text)
	}
	return status, nil
}

func parseDelay(word, text string) (time.Duration, error) {
	delay, err := time.ParseDuration(text)
	if err != nil || delay <= 0 {
		return 0, fmt.Errorf("%s:%s is not a positive duration; write for example %s:2s", word, text, word)
	}
	return delay, nil
}

func parseTimes(text string) (int, error) {
	times, err := strconv.Atoi(text)
	if err != nil || times < 1 {
		return 0, fmt.Errorf("times:%s is not a positive number", text)
	}
	return times, nil
}

func parseProbability(text string) (float64, error) {
	probability, err := strconv.ParseFloat(text, 64)
	// In this form the condition also refuses NaN.
	if err != nil || !(probability > 0 && probability <= 1) {
		return 0, fmt.Errorf("probability:%s must be greater than 0 and at most 1", text)
	}
	return probability, nil
}

func (f *Fault) parseHeader(text string) error {
	name, value, ok := strings.Cut(text, ":")
	name = strings.TrimSpace(name)
	if !ok || name == "" || strings.ContainsAny(name, " \t\"(),/") {
		return fmt.Errorf("header:%s is not a header field; write header:Name: value", text)
	}
	if f.Header == nil {
		f.Header = make(http.Header)
	}
	f.Header.Add(name, strings.TrimSpace(value))
	return nil
}
