package demo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// maxQuestions is the maximum number of questions in memory. The oldest are dropped.
const maxQuestions = 256

// maxQuestionBytes is the maximum size of the form with a question.
const maxQuestionBytes = 4 << 10

// question is one call of the make-believe model. It is charged once, also if the user
// reloads the page of its answer.
type question struct {
	path   string // of the page with its answer
	userID string
	text   string
	paying sync.Mutex
	paid   bool
}

// pay charges for the question, unless it was charged already. cost is the amount that this
// call has charged.
func (q *question) pay(spend SpendFunc) (cost string, err error) {
	q.paying.Lock()
	defer q.paying.Unlock()
	if q.paid {
		return noCost, nil
	}
	if err := spend(q.userID, SpendCents); err != nil {
		return noCost, err
	}
	q.paid = true
	return spendAmount.FloatString(2), nil
}

// noCost is the cost of a response that charged nothing.
const noCost = "0"

// questions holds the latest questions, by the id in the path of their answer.
type questions struct {
	mu   sync.Mutex
	byID map[string]*question
	ids  []string // the oldest first
}

func (q *questions) add(asked *question) {
	id := rand.Text()
	asked.path = answersPath + id
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.byID == nil {
		q.byID = make(map[string]*question)
	}
	if len(q.ids) == maxQuestions {
		delete(q.byID, q.ids[0])
		q.ids = q.ids[1:]
	}
	q.ids = append(q.ids, id)
	q.byID[id] = asked
}

func (q *questions) find(id, userID string) *question {
	q.mu.Lock()
	defer q.mu.Unlock()
	if found := q.byID[id]; found != nil && found.userID == userID {
		return found
	}
	return nil
}

// ask stores a question, charges nothing, and redirects to the page of its answer. The
// gateway does not forward requests for that page from users who cannot pay.
func (a *app) ask(w http.ResponseWriter, r *http.Request) {
	u, ok := userOf(r.Header)
	if !ok {
		showSignedOut(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxQuestionBytes)
	text := strings.Join(strings.Fields(r.FormValue("question")), " ")
	if text == "" {
		showMessage(w, r, http.StatusBadRequest, "No question received", "The question is empty or too long. Nothing was charged.")
		return
	}
	q := &question{userID: u.ID, text: text}
	a.questions.add(q)
	http.Redirect(w, r, q.path, http.StatusSeeOther)
}

// answer charges for a question and answers it word by word.
func (a *app) answer(w http.ResponseWriter, r *http.Request) {
	u, _ := userOf(r.Header)
	q := a.questions.find(r.PathValue("id"), u.ID)
	if q == nil {
		showMessage(w, r, http.StatusNotFound, "Answer not found", "Answers are kept for a short time. Only the user who asked can see them.")
		return
	}
	// Charge before the first byte: the header says that the balance has changed.
	w.Header().Set(headerBalance, "changed")
	// The cost is known, too. In a trailer it would be lost if the user leaves the page.
	cost, err := q.pay(a.spend)
	w.Header().Set(headerCost, cost)
	switch {
	case errors.Is(err, ErrInsufficient):
		// Another request has spent the last of the money. The gateway reads the balance
		// again at the next request for this page, and then shows that it is too low.
		http.Redirect(w, r, q.path, http.StatusSeeOther)
	case err != nil:
		showMessage(w, r, http.StatusInternalServerError, "Nothing was charged", "The provider's account could not be charged.")
	default:
		a.speak(w, r, q)
	}
}

// thinkingWords is the duration of a script's call, as the number of words of an answer.
const thinkingWords = 20

// model serves one call of a script. It works for a moment, charges the account, and
// reports the cost.
func (a *app) model(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
		return
	case <-time.After(thinkingWords * a.pace):
	}
	u, _ := userOf(r.Header)
	if err := a.spend(u.ID, SpendCents); err != nil {
		w.Header().Set(headerCost, noCost)
		http.Error(w, "the provider's account could not be charged", http.StatusInternalServerError)
		return
	}
	w.Header().Set(headerCost, spendAmount.FloatString(2))
	_, _ = io.WriteString(w, "Forty-two is the answer.\n")
}

// speak writes the page of an answer: the part before the answer, then word by word the
// answer, then the rest.
func (a *app) speak(w http.ResponseWriter, r *http.Request, q *question) {
	p := newPage(r, "An answer")
	p.Text = q.text
	whole, ok := render(w, "answer.html", p)
	if !ok {
		return
	}
	before, after, _ := strings.Cut(whole, wordsComeHere)
	writeHeader(w, http.StatusOK)
	flush := http.NewResponseController(w).Flush
	_, _ = w.Write([]byte(before))
	for word := range strings.FieldsSeq(reply(q.text)) {
		if flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(a.pace):
		}
		_, _ = w.Write([]byte(template.HTMLEscapeString(word) + " "))
	}
	_, _ = w.Write([]byte(after))
}

// reply returns the text that the demo streams as the answer of a language model.
func reply(question string) string {
	return fmt.Sprintf("You asked: “%s” That makes %d letters, and this is as far as I can think: "+
		"I am no model, but a few lines of code that answer slowly. Each of these words left the application by itself "+
		"and passed the gateway at once. Before the first of them I charged your account, and told the gateway so. "+
		"When your money is used up it will not even ask me.", question, len([]rune(question)))
}
