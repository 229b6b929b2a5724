package main

import (
	"slices"
	"sync"
	"time"
)

// More failures than these are counted, but not described.
const described = 5000

type failure struct {
	At      string  `json:"at"`
	Kind    string  `json:"kind"`
	Detail  string  `json:"detail,omitempty"`
	Seconds float64 `json:"seconds"`
}

type report struct {
	Connections string         `json:"connections"`
	Started     string         `json:"started"`
	Sent        int            `json:"sent"`
	OK          int            `json:"ok"`
	Failed      int            `json:"failed"`
	Kinds       map[string]int `json:"failed_by_kind"`
	Refused     map[string]int `json:"refused_by_kind"`
	Max         float64        `json:"max_seconds"`
	P99         float64        `json:"p99_seconds"`
	Failures    []failure      `json:"failures"`
}

// tally counts from many goroutines.
type tally struct {
	sync.Mutex
	ok       int
	kinds    map[string]int
	refusals map[string]int
	latency  []time.Duration
	failures []failure
}

func (t *tally) succeeded(took time.Duration) {
	t.Lock()
	defer t.Unlock()
	t.ok++
	t.latency = append(t.latency, took)
}

func (t *tally) refused(kind string, took time.Duration) {
	t.Lock()
	defer t.Unlock()
	t.ok++
	t.latency = append(t.latency, took)
	if t.refusals == nil {
		t.refusals = map[string]int{}
	}
	t.refusals[kind]++
}

func (t *tally) failed(kind, detail string, at time.Time, took time.Duration) {
	t.Lock()
	defer t.Unlock()
	t.latency = append(t.latency, took)
	if t.kinds == nil {
		t.kinds = map[string]int{}
	}
	t.kinds[kind]++
	if len(t.failures) < described {
		stamp := at.UTC().Format("2006-01-02T15:04:05.000Z")
		t.failures = append(t.failures, failure{stamp, kind, detail, took.Seconds()})
	}
}

func (t *tally) report(o options, started time.Time) report {
	t.Lock()
	defer t.Unlock()
	slices.Sort(t.latency)
	failed := 0
	for _, n := range t.kinds {
		failed += n
	}
	r := report{
		Connections: o.connections, Started: started.UTC().Format(time.RFC3339),
		Sent: len(t.latency), OK: t.ok, Failed: failed,
		Kinds: t.kinds, Refused: t.refusals, Failures: t.failures,
	}
	if n := len(t.latency); n > 0 {
		r.Max = t.latency[n-1].Seconds()
		r.P99 = t.latency[(n*99+99)/100-1].Seconds()
	}
	return r
}
