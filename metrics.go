package tollgate

import (
	"time"

	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
)

// note counts a request that has been decided.
func (d *decider) note(begun time.Time, decided decision, dry bool) {
	outcome := outcomeOf(decided)
	if dry && outcome == metrics.Passed {
		outcome = metrics.DryRun
	}
	d.metrics.ObserveDecision(outcome, time.Since(begun))
	switch {
	case decided.id != nil && decided.id.Told:
		d.metrics.ObserveBalanceAge(max(decided.id.Age, 0))
	case outcome == metrics.InsufficientBalance:
		d.metrics.CountInsufficient(shortageOf(decided))
	}
}

func outcomeOf(d decision) metrics.Outcome {
	switch d.verdict {
	case verdictPass:
		if d.id == nil {
			return metrics.Anonymous
		}
		return metrics.Passed
	case verdictLogin:
		return metrics.Unauthenticated
	case verdictRefused:
		return metrics.Refused
	case verdictLacking:
		return metrics.InsufficientBalance
	case verdictOverBudget:
		return metrics.OverBudget
	default:
		return metrics.Unavailable
	}
}

// shortageOf says why the money of a refused user was not enough.
func shortageOf(d decision) metrics.Shortage {
	if d.short.Balance == nil {
		return metrics.UnknownBalance
	}
	balance, known := decimal.Parse(*d.short.Balance)
	required, _ := decimal.Parse(d.short.Required)
	if known && balance.Compare(required) >= 0 {
		return metrics.AllHeld
	}
	return metrics.TooLow
}

// Holds implements metrics.Source.
func (s *siteState) Holds() int { return s.ledgers.Running() }

// Streams implements metrics.Source.
func (s *siteState) Streams() int { return s.streams.Len() }
