package demo

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// asking is the application with a purse of its own.
type asking struct {
	*app
	handler http.Handler
	t       *testing.T
}

func newAsking(t *testing.T, spend SpendFunc) *asking {
	t.Helper()
	a := &app{spend: spend}
	return &asking{a, a.handler(), t}
}

func (a *asking) do(userID, method, target, body string) *httptest.ResponseRecorder {
	a.t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "text/html")
	r.Header.Set("X-User-Id", userID)
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	return w
}

// ask sends a question, and gives the path of its answer.
func (a *asking) ask(userID, text string) (path string) {
	a.t.Helper()
	w := a.do(userID, "POST", "/ask", url.Values{"question": {text}}.Encode())
	path = w.Header().Get("Location")
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(path, "/answers/") {
		a.t.Fatalf("asking: got %d to %q", w.Code, path)
	}
	return path
}

func TestAnswerIsPaidOnce(t *testing.T) {
	var mu sync.Mutex
	charged := map[string]int64{}
	a := newAsking(t, func(id string, cents int64) error {
		mu.Lock()
		defer mu.Unlock()
		charged[id] += cents
		return nil
	})
	path := a.ask("7", "why?")
	if len(charged) != 0 {
		t.Errorf("asking alone charged %v", charged)
	}
	var costs struct {
		sync.Mutex
		told []string
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			w := a.do("7", "GET", path, "")
			if w.Code != http.StatusOK || w.Header().Get("Tollgate-Balance") != "changed" || !w.Flushed {
				t.Errorf("got %d, %v", w.Code, w.Header())
			}
			costs.Lock()
			costs.told = append(costs.told, w.Result().Header.Get("Tollgate-Cost"))
			costs.Unlock()
			if page := w.Body.String(); !strings.Contains(page, "You asked: “why?” That makes 4 letters") || !strings.Contains(page, "</html>") || strings.Contains(page, wordsComeHere) {
				t.Errorf("the page is %s", page)
			}
		})
	}
	all.Wait()
	if charged["7"] != SpendCents || len(charged) != 1 {
		t.Errorf("charged %v", charged)
	}
	slices.Sort(costs.told)
	if want := []string{"0", "0", "0", "0", "0.50"}; !slices.Equal(costs.told, want) {
		t.Errorf("the costs are %q, want %q", costs.told, want)
	}
}

func TestModelCallReportsItsCost(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		cost   string
	}{
		"paid":          {nil, http.StatusOK, "0.50"},
		"without money": {ErrInsufficient, http.StatusInternalServerError, "0"},
		"a fault":       {errors.New("down"), http.StatusInternalServerError, "0"},
	} {
		a := newAsking(t, func(string, int64) error { return c.err })
		if w := a.do("7", "POST", "/model", ""); w.Code != c.status || w.Header().Get("Tollgate-Cost") != c.cost {
			t.Errorf("%s: got status %d, cost %q, want %d, %q", name, w.Code, w.Header().Get("Tollgate-Cost"), c.status, c.cost)
		}
	}
}

func TestAnswerIsShownOnlyToItsUser(t *testing.T) {
	a := newAsking(t, func(string, int64) error { t.Error("money was spent"); return nil })
	path := a.ask("7", "why?")
	for _, got := range []*httptest.ResponseRecorder{
		a.do("8", "GET", path, ""), a.do("", "GET", path, ""), a.do("7", "GET", path+"x", ""), a.do("7", "GET", "/answers/", ""),
	} {
		if got.Code != http.StatusNotFound {
			t.Errorf("got %d", got.Code)
		}
	}
}

func TestQuestionIsEscaped(t *testing.T) {
	a := newAsking(t, func(string, int64) error { return nil })
	page := a.do("7", "GET", a.ask("7", "<b>bold</b> &amp; \x00 <slot></slot>"), "").Body.String()
	if strings.Contains(page, "<b>") || strings.Contains(page, "<slot") || !strings.Contains(page, "&lt;b&gt;bold&lt;/b&gt; &amp;amp;") {
		t.Errorf("the page is %s", page)
	}
}

func TestInsufficientBalanceRedirectsToTheGateway(t *testing.T) {
	a := newAsking(t, func(string, int64) error { return ErrInsufficient })
	path := a.ask("7", "why?")
	if w := a.do("7", "GET", path, ""); w.Code != http.StatusSeeOther || w.Header().Get("Location") != path || w.Header().Get("Tollgate-Balance") != "changed" || w.Header().Get("Tollgate-Cost") != "0" {
		t.Errorf("got %d, %v", w.Code, w.Header())
	}
	a = newAsking(t, func(string, int64) error { return errors.New("down") })
	if w := a.do("7", "GET", a.ask("7", "why?"), ""); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "Nothing was charged") {
		t.Errorf("a fault: got %d: %s", w.Code, w.Body)
	}
}

func TestEmptyOrHugeQuestionIsRefused(t *testing.T) {
	a := newAsking(t, nil)
	for _, body := range []string{"", "question=", "question=+%0A", "question=" + strings.Repeat("x", maxQuestionBytes)} {
		if w := a.do("7", "POST", "/ask", body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "Nothing was charged") {
			t.Errorf("%.20q: got %d: %s", body, w.Code, w.Body)
		}
	}
}

func TestOldestQuestionIsDropped(t *testing.T) {
	a := newAsking(t, func(string, int64) error { return nil })
	oldest := a.ask("7", "first?")
	second := a.ask("7", "second?")
	for range maxQuestions - 1 {
		a.ask("8", "more?")
	}
	if w := a.do("7", "GET", oldest, ""); w.Code != http.StatusNotFound {
		t.Errorf("the oldest: got %d", w.Code)
	}
	if w := a.do("7", "GET", second, ""); w.Code != http.StatusOK {
		t.Errorf("the second: got %d", w.Code)
	}
	if len(a.questions.byID) != maxQuestions || len(a.questions.ids) != maxQuestions {
		t.Errorf("%d and %d are kept", len(a.questions.byID), len(a.questions.ids))
	}
}

func TestAnswerIsStreamedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t, func(string, int64) error { return nil })
		a.pace = time.Second
		path := a.ask("7", "why?")
		began := time.Now()
		a.do("7", "GET", path, "")
		if took, words := time.Since(began), len(strings.Fields(reply("why?"))); took != time.Duration(words)*time.Second {
			t.Errorf("%d words took %v", words, took)
		}
	})
}
