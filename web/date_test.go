package web

import (
	"strings"
	"testing"
	"time"
)

func TestBudgetSaysWhenItResets(t *testing.T) {
	resets := time.Date(2026, time.November, 28, 1, 5, 59, 0, time.FixedZone("", 3600))
	for language, want := range map[string][]string{
		"en":      {"Limit here5.00", "Spent so far4.80", "What is left is not enough for this request.", "on 28 November 2026 at 00:05 UTC. That is in about 10 hours."},
		"es":      {"4.80", "5.00", "el 28 de noviembre de 2026 a las 00:05 UTC. Faltan aproximadamente 10 horas."},
		"pt-BR":   {"4.80", "5.00", "em 28 de novembro de 2026 às 00:05 UTC. Faltam cerca de 10 horas."},
		"ja":      {"4.80", "5.00", "2026年11月28日 00:05（UTC）にリセットされます。 あと約 10 時間です。"},
		"zh-Hans": {"4.80", "5.00", "2026年11月28日 00:05（UTC）重置。 大约还需 10 小时。"},
		"zh-Hant": {"4.80", "5.00", "2026年11月28日 00:05（UTC）重設。 大約還需 10 小時。"},
	} {
		d := fullData()
		d.AcceptLanguage, d.ResetsAt, d.RetryAfter = language, resets, 10*3600
		doc, _ := mustRender(t, Budget, d)
		for _, text := range want {
			if !strings.Contains(doc.visibleText(), text) {
				t.Errorf("%s: got %s, want %q in it", language, doc.visibleText(), text)
			}
		}
	}
}

func TestBudgetWaitIsInMinutesHoursOrDays(t *testing.T) {
	for wait, want := range map[time.Duration]string{
		time.Second:                   "That is in about 1 minute.",
		61 * time.Second:              "That is in about 2 minutes.",
		time.Hour:                     "That is in about 60 minutes.",
		time.Hour + time.Second:       "That is in about 1 hour.",
		95 * time.Minute:              "That is in about 2 hours.",
		24 * time.Hour:                "That is in about 24 hours.",
		30*24*time.Hour + 7*time.Hour: "That is in about 30 days.",
	} {
		d := fullData()
		d.RetryAfter = int(wait.Seconds())
		doc, _ := mustRender(t, Budget, d)
		if !strings.Contains(doc.visibleText(), " UTC. "+want) {
			t.Errorf("%v: got %s, want %q in it", wait, doc.visibleText(), want)
		}
	}
}

func TestBudgetOmitsUnknownValues(t *testing.T) {
	doc, _ := mustRender(t, Budget, Data{})
	text := doc.visibleText()
	for _, word := range []string{"Limit here", "Spent so far", "What is left", "resets", "That is in", "UTC"} {
		if strings.Contains(text, word) {
			t.Errorf("the page says %q: %s", word, text)
		}
	}
	d := fullData()
	d.RetryAfter = 0
	doc, _ = mustRender(t, Budget, d)
	if text := doc.visibleText(); !strings.Contains(text, "28 November 2026 at 00:00 UTC.") || strings.Contains(text, "That is in") {
		t.Errorf("without a wait the page says %s", text)
	}
}

func TestEveryLanguageNamesTwelveMonths(t *testing.T) {
	for _, l := range translations {
		if n := len(strings.Fields(l.text["months"])); n != 12 {
			t.Errorf("%s: got %d months, want 12", l.tag, n)
		}
	}
}
