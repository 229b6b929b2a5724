// Load on the token endpoint at a fixed rate, whatever the answers are.
//
// In: flags, below. Out: one JSON report on standard output when the time is over; exit code 1 if
// anything failed. Open loop: request number n starts n/rate after the beginning, whether those
// before are answered or not, so a stalled second costs what it would cost users. Nothing is tried
// again: a failure is a failure. Blocks for the duration and at most one deadline more.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

const (
	endpoint = "http://169.254.169.254/metadata/identity/oauth2/token"
	deadline = 10 * time.Second
	// More than these at once only happens when nothing is answered any more.
	inFlight = 1000
)

type options struct {
	rate         float64
	duration     time.Duration
	connections  string
	resource     string
	clientID     string
	wantClientID string
	expect       string
}

func main() {
	var o options
	flag.Float64Var(&o.rate, "rate", 50, "requests per second")
	flag.DurationVar(&o.duration, "duration", 30*time.Second, "for how long")
	flag.StringVar(&o.connections, "connections", "keepalive", "keepalive, or new: one for each request")
	flag.StringVar(&o.resource, "resource", "https://vault.azure.net", "what the tokens are for")
	flag.StringVar(&o.clientID, "client-id", "", "asks for the identity with this client id")
	flag.StringVar(&o.wantClientID, "want-client-id", "", "whose tokens must come (otherwise --client-id)")
	flag.StringVar(&o.expect, "expect", "token", "token, or refusal: then a token is a failure and anything else is not")
	flag.Parse()
	if o.wantClientID == "" {
		o.wantClientID = o.clientID
	}
	if err := o.check(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(2)
	}
	report := run(o)
	_ = json.NewEncoder(os.Stdout).Encode(report)
	if report.Failed > 0 {
		os.Exit(1)
	}
}

func (o options) check() error {
	switch {
	case o.rate <= 0 || o.rate > 1000:
		return fmt.Errorf("--rate %v: above 0, at most 1000", o.rate)
	case o.duration <= 0 || o.duration > 10*time.Minute:
		return fmt.Errorf("--duration %v: above 0, at most 10m", o.duration)
	case o.connections != "keepalive" && o.connections != "new":
		return fmt.Errorf("--connections %s: keepalive or new", o.connections)
	case o.expect != "token" && o.expect != "refusal":
		return fmt.Errorf("--expect %s: token or refusal", o.expect)
	}
	return nil
}

func run(o options) report {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives:   o.connections == "new",
		MaxIdleConnsPerHost: inFlight,
		IdleConnTimeout:     time.Minute,
	}}
	query := url.Values{"api-version": {"2018-02-01"}, "resource": {o.resource}}
	if o.clientID != "" {
		query.Set("client_id", o.clientID)
	}
	address := endpoint + "?" + query.Encode()

	var (
		tally   tally
		waiting sync.WaitGroup
		slots   = make(chan struct{}, inFlight)
		total   = int(o.rate * o.duration.Seconds())
		started = time.Now()
	)
	for n := range total {
		at := started.Add(time.Duration(float64(n) / o.rate * float64(time.Second)))
		time.Sleep(time.Until(at))
		select {
		case slots <- struct{}{}:
		default:
			tally.failed("not sent: too many unanswered", "", at, 0)
			continue
		}
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			defer func() { <-slots }()
			ask(client, address, o, &tally)
		}()
	}
	waiting.Wait()
	return tally.report(o, started)
}

// ask sends one request and counts what becomes of it.
func ask(client *http.Client, address string, o options, tally *tally) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	began := time.Now()
	kind, detail := answer(ctx, client, address, o.wantClientID)
	took := time.Since(began)
	switch {
	case o.expect == "refusal" && kind == "":
		tally.failed("got a token", "", began, took)
	case o.expect == "refusal" && kind != "wrong identity":
		tally.refused(kind, took)
	case kind != "":
		tally.failed(kind, detail, began, took)
	default:
		tally.succeeded(took)
	}
}
