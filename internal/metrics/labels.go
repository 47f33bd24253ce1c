package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-tollgate/tollgate/internal/cause"
)

// Outcome is what the gateway did with a request.
type Outcome int

// The outcomes. See docs/operations.md.
const (
	Passed Outcome = iota
	Anonymous
	Unauthenticated
	Refused
	InsufficientBalance
	OverBudget
	Unavailable
	DryRun
	Endpoint
	BadRequest
	CrossOrigin
	TooEarly
	outcomeCount
)

var outcomeNames = [outcomeCount]string{
	Passed: "passed", Anonymous: "anonymous", Unauthenticated: "unauthenticated", Refused: "refused",
	InsufficientBalance: "insufficient_balance", OverBudget: "over_budget", Unavailable: "unavailable",
	DryRun: "dry_run", Endpoint: "endpoint", BadRequest: "bad_request", CrossOrigin: "cross_origin",
	TooEarly: "too_early",
}

// Shortage is why the user's money was not enough.
type Shortage int

// The shortages. See docs/operations.md.
const (
	TooLow Shortage = iota
	AllHeld
	UnknownBalance
	shortageCount
)

var shortageNames = [shortageCount]string{TooLow: "too_low", AllHeld: "held", UnknownBalance: "unknown"}

// ResultOK is the result of what succeeded.
const ResultOK = "ok"

// results are the counters of a label result, by its value: ResultOK, or a cause.
type results map[string]prometheus.Counter

func newResults(of *prometheus.CounterVec) results {
	counters := results{ResultOK: of.WithLabelValues(ResultOK)}
	for _, row := range cause.All() {
		counters[row.Code] = of.WithLabelValues(row.Code)
	}
	return counters
}

func (r results) count(result string) {
	counter, known := r[result]
	if !known {
		counter = r[cause.ServerError]
	}
	counter.Inc()
}

// endpoints are the provider's endpoints.
var endpoints = []string{"token", "userinfo", "balance", "topup", "revocation"}

// The codes of requests to the provider that got no response.
const (
	CodeTimeout     = "timeout"
	CodeUnreachable = "unreachable"
	codeCanceled    = "canceled"
	codeOther       = "other"
)

// CodeOf returns the label code of a request to the provider: its HTTP status, or why there
// was no response. A status that HTTP does not define is "other", because the provider
// chooses it.
func CodeOf(status int, err error) string {
	switch {
	case status != 0 && http.StatusText(status) == "":
		return codeOther
	case status != 0:
		return strconv.Itoa(status)
	case errors.Is(err, context.Canceled):
		return codeCanceled
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return CodeTimeout
	}
	return CodeUnreachable
}

// Operation is an operation of the session store, or of its ledger.
type Operation int

// The operations: first those of sessions, then those of the ledger.
const (
	OpLoad Operation = iota
	OpCreate
	OpSave
	OpReread
	OpLock
	OpEnd
	OpList
	OpReady
	OpAdmit
	OpSettle
	OpRenewHolds
	OpBeginReading
	OpEndReading
	operationCount
)

var operationNames = [operationCount]string{
	OpLoad: "load", OpCreate: "create", OpSave: "save", OpReread: "reread", OpLock: "lock", OpEnd: "end",
	OpList: "list", OpReady: "ready",
	OpAdmit: "admit", OpSettle: "settle", OpRenewHolds: "renew_holds", OpBeginReading: "begin_reading", OpEndReading: "end_reading",
}

// String returns the operation as in the label.
func (o Operation) String() string { return operationNames[o] }

// StoreResult is how an operation of the store ended.
type StoreResult int

// The results. A session that does not exist is a good result.
const (
	StoreOK StoreResult = iota
	StoreError
	StoreCanceled
	storeResultCount
)

var storeResultNames = [storeResultCount]string{StoreOK: ResultOK, StoreError: "error", StoreCanceled: "canceled"}
