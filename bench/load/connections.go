// The loads that are about connections: logins, idle clients, and a slow receiver.

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

const (
	loginsAtOnce    = 16
	loginsPerSecond = 6000 // keys are made for so many
)

// loadLogin logs clients in and out again, 16 at once: each with a key of its own and a full TLS
// handshake. A login is done when the server info has been opened.
func loadLogin(o *options) (*result, error) {
	pids := tree(o.pids...)
	first, err := dial(&o.target, newIdentity())
	if err != nil {
		return nil, err
	}
	first.goodbye()
	keys := int(loginsPerSecond * (o.warmup + o.seconds).Seconds())
	identities := make(chan *identity, keys)
	for range keys {
		who := newIdentity()
		who.meet(first.server)
		identities <- who
	}
	close(identities)
	debug.SetGCPercent(400) // fresh memory would cost more
	var done atomic.Uint64
	var stop atomic.Bool
	failures := make(chan error, loginsAtOnce)
	for range loginsAtOnce {
		go func() {
			var failure error
			for who := range identities {
				if stop.Load() {
					break
				}
				c, err := dial(&o.target, who)
				if err != nil {
					failure = err
					break
				}
				c.goodbye()
				done.Add(1)
			}
			failures <- failure
		}()
	}
	time.Sleep(o.warmup)
	count, used := done.Load(), o.usage(pids)
	time.Sleep(o.seconds)
	count, used = done.Load()-count, o.usage(pids).minus(used)
	if len(identities) == 0 {
		return nil, fmt.Errorf("more than %d logins a second: this client has run out of keys", loginsPerSecond)
	}
	stop.Store(true)
	for range loginsAtOnce {
		if err := <-failures; err != nil {
			return nil, err
		}
	}
	return newResult(o, used, count), nil
}

// loadIdle logs -clients in and lets them be: what memory does each take, and what CPU time do
// they take together? Rate and CPUEach are of no meaning here.
func loadIdle(o *options) (*result, error) {
	pids := tree(o.pids...)
	if c, err := dial(&o.target, newIdentity()); err == nil {
		// What the first client makes the server load is not this client's.
		time.Sleep(o.settle / 2)
		c.goodbye()
	}
	time.Sleep(o.settle / 2)
	pssBefore, rssBefore := memory(pids)
	l, err := dialLoop(&o.target, o.clients)
	if err != nil {
		return nil, err
	}
	defer l.close()
	runtime.GC()
	l.rest(o.settle)
	pss, rss := memory(pids)
	used := o.usage(pids)
	l.rest(o.seconds)
	used = o.usage(pids).minus(used)
	pssLater, _ := memory(pids)

	l.finish()
	r := newResult(o, used, 0)
	r.Notes, r.Errors = l.notes, l.errors
	n := float64(len(l.clients))
	r.Extra = map[string]float64{
		"pss_each":       float64(pss-pssBefore) / n,
		"rss_each":       float64(rss-rssBefore) / n,
		"pss_each_later": float64(pssLater-pssBefore) / n,
		"pss_before":     float64(pssBefore),
		"cpu_ms_per_s":   used.server / used.seconds * 1e3,
	}
	return r, nil
}

const (
	slowRate    = 1e6 / 8  // bytes a second that the slow receiver takes
	slowOffered = 10e6 / 8 // bytes a second that are sent to it
	fastWindow  = 8
)

// loadSlow has -pairs fast pairs, each with 8 packets under way, first alone and then beside a
// receiver that takes 1 Mbit/s and is sent 10. Rate, losses and CPU are those of the fast pairs
// beside it; Latency is the slow one's queueing delay.
func loadSlow(o *options) (*result, error) {
	l, err := connect(o, window)
	if err != nil {
		return nil, err
	}
	defer l.close()
	fast := l.senders
	for _, f := range fast {
		f.window = fastWindow
	}
	sender, err := dial(&o.target, newIdentity())
	if err != nil {
		return nil, err
	}
	thin := o.target
	thin.thin = true
	receiver, err := dial(&thin, newIdentity())
	if err != nil {
		return nil, err
	}
	for _, c := range []*client{sender, receiver} {
		if err := l.add(c); err != nil {
			return nil, err
		}
	}
	slow := l.flow(sender, receiver, o.size, paced)
	slow.interval = 1e9 * float64(o.size+overhead) / slowOffered
	slow.times = &histogram{}

	pids := tree(o.pids...)
	l.pack, l.sending = o.pack, true
	l.run(o.warmup)
	alone, begin := total(fast), nanotime()
	l.run(o.seconds)
	aloneRate := float64(total(fast).minus(alone).received) / float64(nanotime()-begin) * 1e9

	slow.due = float64(nanotime())
	l.senders = append(l.senders, slow)
	l.slow = []*slowReader{{client: receiver, rate: slowRate}}
	l.run(o.settle)
	l.timing, l.idle = true, 0
	counts, slowCounts, used := total(fast), slow.received, o.usage(pids)
	l.run(o.seconds)
	counts, used = total(fast).minus(counts), o.usage(pids).minus(used)
	slowCounts = slow.received - slowCounts
	l.timing = false
	l.drain(fast, 2*time.Second)

	r := newResult(o, used, counts.received)
	r.ClientBusy = 1 - float64(l.idle)/1e9/used.seconds
	r.Sent, r.Offered = counts.sent, float64(counts.sent)/used.seconds
	all := total(fast)
	r.Lost = all.sent - all.received
	r.LostShare = float64(r.Lost) / float64(all.sent)
	r.Latency = slow.times.summary()
	r.Extra = map[string]float64{
		"alone_rate":    aloneRate,
		"kept":          r.Rate / aloneRate,
		"slow_received": float64(slowCounts) / used.seconds,
	}
	l.finish()
	r.Notes, r.Errors = l.notes, l.errors
	return r, nil
}
