// The loads that send packets through the relay.

package main

import (
	"fmt"
	"slices"
	"time"
)

// options are the flags of all loads; each load's comment says which it takes.
type options struct {
	target
	stun string
	load string
	pids []int

	serverCore, clientCore int
	shared                 bool
	deals                  int

	size    int
	pairs   int
	senders int
	dests   int
	clients int
	burst   int
	rate    float64
	window  int
	pack    int
	warmup  time.Duration
	seconds time.Duration
	settle  time.Duration
	steady  bool
	take    float64
	offer   float64
	own     bool
	stall   time.Duration
	trial   time.Duration
	start   float64
	grain   float64
	budget  time.Duration
	strict  bool
}

// result is what a load prints, as JSON. Counts are of the measured time, losses of everything
// that was sent, after all that could still arrive has arrived.
type result struct {
	Load     string  `json:"load"`
	Seconds  float64 `json:"seconds"`
	Sent     uint64  `json:"sent"`
	Received uint64  `json:"received"`
	// Rate is of what arrives, per second.
	Rate    float64 `json:"rate"`
	Offered float64 `json:"offered"`
	Lost    uint64  `json:"lost"`
	// LostShare is of all that was sent.
	LostShare float64 `json:"lost_share"`
	// AllSent and AllReceived are of everything: what opened the way, warm-up, all trials.
	AllSent     uint64 `json:"all_sent"`
	AllReceived uint64 `json:"all_received"`
	// ServerCPU is seconds of CPU per second; CPUEach is microseconds for each thing that arrived.
	ServerCPU  float64 `json:"server_cpu"`
	CPUEach    float64 `json:"cpu_each"`
	ClientBusy float64 `json:"client_busy"`
	// Others is the share of the busier core that went to other processes.
	Others  float64            `json:"others"`
	Latency *latency           `json:"latency,omitempty"`
	Extra   map[string]float64 `json:"extra,omitempty"`
	Trials  []trial            `json:"trials,omitempty"`
	Notes   map[string]int     `json:"notes,omitempty"`
	Errors  []string           `json:"errors,omitempty"`
}

type trial struct {
	Rate    float64 `json:"rate"`
	Arrived float64 `json:"arrived"`
	Lost    uint64  `json:"lost"`
	Passed  bool    `json:"passed"`
	Others  float64 `json:"others"`
}

// dialLoop logs n clients in, a few at a time, and gives them to a new loop.
func dialLoop(t *target, n int) (*loop, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	clients, err := dialMany(t, n)
	for _, c := range clients {
		if c != nil && err == nil {
			err = l.add(c)
		}
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

const dialAtOnce = 16

func dialMany(t *target, n int) ([]*client, error) {
	clients := make([]*client, n)
	failures := make(chan error, n)
	tickets := make(chan struct{}, dialAtOnce)
	for i := range clients {
		tickets <- struct{}{}
		go func() {
			where, err := *t, error(nil)
			if t.second != "" && i%2 == 1 {
				where.address = t.second
			}
			clients[i], err = dial(&where, newIdentity())
			<-tickets
			failures <- err
		}()
	}
	var failure error
	for range clients {
		if err := <-failures; err != nil {
			failure = err
		}
	}
	return clients, failure
}

// measure runs a load that has been set up: warm-up, measurement, drain.
func measure(l *loop, o *options) *result {
	pids, before := tree(o.pids...), total(l.flows)
	l.pack = o.pack
	l.sending, l.strict = true, o.strict
	l.run(o.warmup)

	l.timing, l.idle = true, 0
	counts, used := total(l.flows), o.usage(pids)
	l.run(o.seconds)
	counts, used = total(l.flows).minus(counts), o.usage(pids).minus(used)
	l.timing = false
	r := newResult(o, used, counts.received)
	r.Sent, r.Offered = counts.sent, float64(counts.sent)/used.seconds
	if o.shared {
		r.Extra = sharing(l, pids, used)
	} else {
		r.ClientBusy = 1 - float64(l.idle)/1e9/used.seconds
	}

	if !l.strict || l.gaps == 0 {
		l.drain(l.flows, 5*time.Second)
	}
	if !slices.Equal(pids, tree(o.pids...)) {
		l.fail("the server's processes were others at the end than at the beginning")
	}
	all := total(l.flows)
	r.AllSent, r.AllReceived = all.sent, all.received
	all = all.minus(before)
	r.Lost = all.sent - min(all.sent, all.received)
	r.LostShare = float64(r.Lost) / float64(max(1, all.sent))
	if times := l.flows[len(l.flows)-1].times; times != nil {
		r.Latency = times.summary()
	}
	l.finish()
	r.Notes, r.Errors = l.notes, l.errors
	return r
}

// newResult fills in what every load has.
func newResult(o *options, used usage, done uint64) *result {
	return &result{
		Load:       o.load,
		Seconds:    used.seconds,
		Received:   done,
		Rate:       float64(done) / used.seconds,
		ServerCPU:  used.server / used.seconds,
		CPUEach:    used.server / float64(max(1, done)) * 1e6,
		ClientBusy: used.client / used.seconds,
		Others:     used.others(o.shared),
	}
}

// connect logs in the clients of -pairs pairs, or of -senders to one receiver, or of one sender to
// -dests receivers.
func connect(o *options, pacing pacing) (*loop, error) {
	if o.senders > 0 {
		l, err := dialLoop(&o.target, o.senders+1)
		if err != nil {
			return nil, err
		}
		for i := range o.senders {
			l.senders = append(l.senders, l.flow(l.clients[i+1], l.clients[0], o.size, pacing))
		}
		return l, nil
	}
	if o.dests > 0 {
		l, err := dialLoop(&o.target, o.dests+1)
		if err != nil {
			return nil, err
		}
		for i := range o.dests {
			l.senders = append(l.senders, l.flow(l.clients[0], l.clients[i+1], o.size, pacing))
		}
		return l, nil
	}
	l, err := dialLoop(&o.target, 2*o.pairs)
	if err != nil {
		return nil, err
	}
	for i := range o.pairs {
		l.senders = append(l.senders, l.flow(l.clients[2*i], l.clients[2*i+1], o.size, pacing))
	}
	if o.shared {
		l.nap = napTime
	}
	if o.second != "" || o.shared {
		if err := l.openWay(wayTime); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

const (
	probeTime = 20 * time.Millisecond
	wayTime   = 5 * time.Second
)

// openWay sends on each flow, one packet at a time, until the last one has arrived: of the clients
// of another relay, or of another process of the same one, a relay is told a moment after their
// login, and what comes sooner has to be dropped.
func (l *loop) openWay(limit time.Duration) error {
	own := l.senders[0].pacing
	for _, f := range l.senders {
		f.pacing = echo
	}
	l.sending = true
	for _, f := range l.senders {
		for end := nanotime() + int64(limit); f.sent == 0 || f.expected < f.sent; l.run(probeTime) {
			if nanotime() > end {
				return fmt.Errorf("nothing of flow %d got to the other relay or process: %q", f.id, l.errors)
			}
			f.owed = 1
		}
	}
	for _, f := range l.senders {
		f.pacing = own
	}
	l.sending, l.gaps = false, 0
	return nil
}

// loadRate offers -rate packets a second in all.
func loadRate(o *options) (*result, error) {
	l, err := connect(o, paced)
	if err != nil {
		return nil, err
	}
	defer l.close()
	now := float64(nanotime())
	times := &histogram{}
	for i, f := range l.senders {
		f.times, f.burst = times, o.burst
		f.interval = 1e9 * float64(len(l.senders)) / o.rate
		f.due = now + f.interval*float64(i)/float64(len(l.senders))
	}
	return measure(l, o), nil
}

// loadInflight keeps -window packets under way on each pair, of so many -deals of connections.
func loadInflight(o *options) (*result, error) {
	if o.deals > 1 {
		return deal(o, loadInflight)
	}
	l, err := connect(o, window)
	if err != nil {
		return nil, err
	}
	defer l.close()
	times := &histogram{}
	for _, f := range l.senders {
		f.times = times
		f.window = o.window
	}
	return measure(l, o), nil
}

// loadFlat sends whatever the sockets take.
func loadFlat(o *options) (*result, error) {
	l, err := connect(o, flat)
	if err != nil {
		return nil, err
	}
	defer l.close()
	return measure(l, o), nil
}

// loadRTT sends a packet there and back again, one at a time.
func loadRTT(o *options) (*result, error) {
	l, err := dialLoop(&o.target, 2)
	if err != nil {
		return nil, err
	}
	defer l.close()
	ping := l.flow(l.clients[0], l.clients[1], o.size, echo)
	pong := l.flow(l.clients[1], l.clients[0], o.size, echo)
	ping.answers, pong.answers = pong, ping
	ping.owed, pong.reply, pong.times = 1, true, &histogram{}
	l.senders = []*flow{ping, pong}
	return measure(l, o), nil
}

// loadMany has -clients clients in pairs, each sending -rate packets a second to its partner.
func loadMany(o *options) (*result, error) {
	l, err := dialLoop(&o.target, o.clients&^1)
	if err != nil {
		return nil, err
	}
	defer l.close()
	times := &histogram{}
	for i, c := range l.clients {
		l.flow(c, l.clients[i^1], o.size, listed).times = times
	}
	l.schedule.fill(l.flows, int64(1e9/o.rate), nanotime())
	return measure(l, o), nil
}

const (
	tries     = 3    // of one rate, without counting those in which others used a core
	disturbed = 0.02 // from this share of a core on
	delivered = 0.98 // of the nominal rate has to be offered, or it does not count
	growth    = 1.6
)

// loadBest looks for the highest rate at which nothing at all is lost: it grows the rate by
// `growth` until that fails, halves the interval down to -grain, and confirms what it has found
// with a run of -seconds. Each trial has new connections. When -budget is used up, one failure of
// a rate is enough.
func loadBest(o *options) (*result, error) {
	var trials []trial
	var all totals
	begin := time.Now()
	attempt := func(rate float64, seconds time.Duration) (*result, bool, error) {
		for failed, made := 0, 0; failed < tries && made < 4*tries; made++ {
			one := *o
			one.rate, one.seconds, one.strict = rate, seconds, true
			r, err := loadRate(&one)
			if err != nil {
				return nil, false, err
			}
			all = totals{all.sent + r.AllSent, all.received + r.AllReceived}
			r.AllSent, r.AllReceived = all.sent, all.received
			passed := r.Lost == 0 && len(r.Errors) == 0 && r.Offered >= delivered*rate
			trials = append(trials, trial{rate, r.Rate, r.Lost, passed, r.Others})
			if passed || len(r.Errors) > 0 {
				return r, passed, nil
			}
			if r.Others < disturbed {
				failed++
			}
			if time.Since(begin) > o.budget {
				break
			}
		}
		return nil, false, nil
	}
	low, high := 0.0, 0.0
	for rate := o.start; high == 0 || high > low*(1+o.grain); {
		r, passed, err := attempt(rate, o.trial)
		if err != nil {
			return nil, err
		}
		if r != nil && len(r.Errors) > 0 {
			r.Load, r.Trials = o.load, trials
			return r, nil
		}
		switch {
		case passed:
			low = rate
		case rate < 100:
			return nil, fmt.Errorf("even %.0f packets a second were not relayed without loss", rate)
		default:
			high = rate
		}
		switch {
		case high == 0:
			rate = low * growth
		case low == 0:
			rate = high / 2
		default:
			rate = (low + high) / 2
		}
	}
	step := 0.96
	for rate := low; rate >= 100; rate *= step {
		if rate < low/2 {
			step = 0.7
		}
		r, passed, err := attempt(rate, o.seconds)
		if err != nil {
			return nil, err
		}
		if passed {
			r.Load, r.Trials = o.load, trials
			return r, nil
		}
	}
	return nil, fmt.Errorf("%.0f packets a second passed once, but no rate down to 100 lasted", low)
}
