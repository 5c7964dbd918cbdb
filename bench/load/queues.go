// The loads that are about what waits in the relay: who gets how much of a receiver, how long a
// packet waits beside a bulk flow, what a stall of the receiver costs, and what many receivers cost
// that take next to nothing.
//
// What waits shall wait in the relay, and not in the kernel, which knows no senders. So receivers
// have little room there (target.thin: 16 KiB to receive in, and segments as on Ethernet: with those
// of loopback the relay's kernel would take megabytes before it says that it is full). They read at
// a rate, a little at a time; a receiver that reads at 10 Mbit/s is one behind such a line. What does
// wait in the kernel on both sides is in the results: `kernel`, in bytes, when the time is over. How
// much the relay's kernel takes is up to the relay (TCP_NOTSENT_LOWAT, SO_SNDBUF).

package main

import (
	"bufio"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	pingSize  = 128
	pingEvery = float64(20 * time.Millisecond)

	tailPackets = 32 // as many as the Go derper keeps
	steadyDelay = int64(20 * time.Millisecond)

	trickleSenders = 8
	trickleStep    = 256 // bytes
	trickleLooks   = 5   // at the relay's memory
)

// bytesPerSecond returns what -take, in Mbit/s, is.
func (o *options) bytesPerSecond() float64 { return o.take * 1e6 / 8 }

// intervalOf returns nanoseconds between packets that are -offer times what the receiver takes.
func (o *options) intervalOf(size int) float64 {
	return 1e9 * float64(size+overhead) / (o.offer * o.bytesPerSecond())
}

// connectTo logs in so many senders and a thin receiver that is to take -take Mbit/s, or, where that
// is 0, one that takes whatever comes. The receiver is the loop's last client.
func connectTo(o *options, senders int) (*loop, *client, error) {
	l, err := dialLoop(&o.target, senders)
	if err != nil {
		return nil, nil, err
	}
	where := o.target
	where.thin = o.take > 0
	receiver, err := dial(&where, newIdentity())
	if err == nil {
		err = l.add(receiver)
	}
	if err != nil {
		l.close()
		return nil, nil, err
	}
	l.pack = o.pack
	if o.take > 0 {
		l.slow = []*slowReader{{client: receiver, rate: o.bytesPerSecond()}}
	}
	return l, receiver, nil
}

// observe sends for -warmup, without counting, and then for -seconds; afterwards it waits for what is
// under way. It returns the result, where losses are those of the flows named, and how many packets
// of each flow arrived in the measured time.
func observe(l *loop, o *options, named ...*flow) (*result, []uint64) {
	pids := tree(o.pids...)
	l.sending = true
	l.run(o.warmup)
	l.timing, l.idle = true, 0
	counts, each, used := total(l.flows), received(l.flows), o.usage(pids)
	l.run(o.seconds)
	counts, used = total(l.flows).minus(counts), o.usage(pids).minus(used)
	for i, before := range each {
		each[i] = l.flows[i].received - before
	}
	l.timing = false
	r := newResult(o, used, counts.received)
	r.Sent, r.Offered = counts.sent, float64(counts.sent)/used.seconds
	r.ClientBusy = 1 - float64(l.idle)/1e9/used.seconds
	r.Extra = map[string]float64{"kernel": float64(inKernel(l.flows[0].dst))}
	l.drain(l.flows, 5*time.Second)
	all := total(l.flows)
	r.AllSent, r.AllReceived = all.sent, all.received
	r.lose(total(named))
	l.finish()
	r.Notes, r.Errors = l.notes, l.errors
	return r, each
}

// lose fills in what of some packets was lost.
func (r *result) lose(all totals) {
	r.Lost = all.sent - min(all.sent, all.received)
	r.LostShare = float64(r.Lost) / float64(max(1, all.sent))
}

func received(flows []*flow) []uint64 {
	var counts []uint64
	for _, f := range flows {
		counts = append(counts, f.received)
	}
	return counts
}

// loadShares has -senders senders that send bursts of -burst packets to one receiver, all of them at
// the same moments and -offer times in all what it takes. With -take 0 each sends what its socket
// takes. Extra tells the smallest share of what arrived, as a part of the largest.
func loadShares(o *options) (*result, error) {
	l, receiver, err := connectTo(o, o.senders)
	if err != nil {
		return nil, err
	}
	defer l.close()
	for _, c := range l.clients[:o.senders] {
		f := l.flow(c, receiver, o.size, flat)
		if o.take > 0 {
			f.pacing, f.burst = paced, o.burst
			f.interval, f.due = o.intervalOf(o.size)*float64(o.senders), float64(nanotime())
		}
		l.senders = append(l.senders, f)
	}
	r, each := observe(l, o, l.flows...)
	r.Extra["fairness"] = float64(slices.Min(each)) / float64(max(1, slices.Max(each)))
	return r, nil
}

// loadPing has a bulk flow that is -offer times what the receiver takes, and beside it a small packet
// every 20 ms to the same receiver: from another sender, or with -own from the same. Latency and
// losses are those of the small ones.
func loadPing(o *options) (*result, error) {
	l, receiver, err := connectTo(o, 2)
	if err != nil {
		return nil, err
	}
	defer l.close()
	bulk := l.flow(l.clients[0], receiver, o.size, paced)
	pinger := l.clients[1]
	if o.own {
		pinger = l.clients[0]
	}
	ping := l.flow(pinger, receiver, pingSize, paced)
	ping.times = &histogram{}
	now := float64(nanotime())
	bulk.interval, bulk.due = o.intervalOf(o.size), now
	ping.interval, ping.due = pingEvery, now
	l.senders = []*flow{bulk, ping}
	r, each := observe(l, o, ping)
	r.Latency = ping.times.summary()
	r.Extra["bulk"] = float64(each[0]) * float64(o.size+overhead) / r.Seconds
	return r, nil
}

// loadStall has a flow that is -offer times what the receiver could take, that is, less. Again and
// again the receiver stalls for -stall, and then has -settle to catch up. Extra tells, of a stall, how
// many packets were lost, whether the last ones that were sent in it arrived, and after how many
// milliseconds the last packet arrived that took longer than it should: means, but the longest delay.
func loadStall(o *options) (*result, error) {
	l, receiver, err := connectTo(o, 1)
	if err != nil {
		return nil, err
	}
	defer l.close()
	f := l.flow(l.clients[0], receiver, o.size, paced)
	f.interval, f.due = o.intervalOf(o.size), float64(nanotime())
	l.senders = []*flow{f}

	var tail, end, late uint64 // of the stall: the first of the last packets, and the one behind them
	var arrivedOfTail, lastLate, longest int64
	f.arrived = func(sequence uint64, delay int64) {
		longest = max(longest, delay)
		if delay > steadyDelay {
			late++
			lastLate = l.now
		}
		if sequence >= tail && sequence < end {
			arrivedOfTail++
		}
	}
	pids := tree(o.pids...)
	l.sending = true
	l.run(o.warmup)
	l.idle = 0
	counts, used := total(l.flows), o.usage(pids)
	stalls, recovery, unsteady, kernel := 0, int64(0), late, int64(0)
	for begin := nanotime(); nanotime()-begin < int64(o.seconds); stalls++ {
		l.slow = nil // it is not polled, either: see slowReader
		tail, end = 0, 0
		l.run(o.stall)
		kernel += inKernel(receiver)
		tail, end = f.sent-tailPackets, f.sent
		goesOn := l.now
		lastLate = goesOn
		l.slow = []*slowReader{{client: receiver, rate: o.bytesPerSecond()}}
		l.run(o.settle)
		recovery += lastLate - goesOn
	}
	counts, used = total(l.flows).minus(counts), o.usage(pids).minus(used)
	r := newResult(o, used, counts.received)
	r.Sent, r.Offered = counts.sent, float64(counts.sent)/used.seconds
	r.ClientBusy = 1 - float64(l.idle)/1e9/used.seconds
	l.drain(l.flows, 5*time.Second)
	all := total(l.flows)
	r.AllSent, r.AllReceived = all.sent, all.received
	r.lose(all)
	n := float64(stalls)
	r.Extra = map[string]float64{
		"stalls":    n,
		"lost_each": float64(r.Lost) / n,
		"sent_each": float64(o.stall) / f.interval,
		"tail":      float64(arrivedOfTail) / n / tailPackets,
		"recovery":  float64(recovery) / n / 1e6,
		"longest":   float64(longest) / 1e6,
		"late":      float64(late-unsteady) / n,
		"kernel":    float64(kernel) / n,
	}
	l.finish()
	r.Notes, r.Errors = l.notes, l.errors
	return r, nil
}

// loadTrickle has -clients receivers that take -take Mbit/s each, a few bytes at a time, and eight
// senders that send -rate packets a second to each of them. Extra tells by how much the relay's memory
// has grown at most, against the same clients idle. It fails where a receiver was disconnected.
func loadTrickle(o *options) (*result, error) {
	l, err := dialLoop(&o.target, trickleSenders)
	if err != nil {
		return nil, err
	}
	defer l.close()
	thin := o.target
	thin.thin = true
	receivers, err := dialMany(&thin, o.clients)
	for i, c := range receivers {
		if err != nil {
			break
		}
		if err = l.add(c); err == nil {
			l.flow(l.clients[i%trickleSenders], c, o.size, listed)
		}
	}
	if err != nil {
		return nil, err
	}
	l.pack = o.pack
	l.rest(o.settle)
	pids := tree(o.pids...)
	pssBefore, rssBefore := memory(pids)

	for _, c := range receivers {
		s := &slowReader{client: c, rate: o.bytesPerSecond(), step: trickleStep}
		s.taken = rand.Float64() * trickleStep // not all in the same moment
		l.slow = append(l.slow, s)
	}
	l.schedule.fill(l.flows, int64(1e9/o.rate), nanotime())
	l.sending, l.idle = true, 0
	used, counts := o.usage(pids), total(l.flows)
	var pss, rss, pssEnd int64
	for range trickleLooks {
		l.run(o.seconds / trickleLooks)
		var resident int64
		pssEnd, resident = memory(pids)
		pss, rss = max(pss, pssEnd), max(rss, resident)
	}
	counts, used = total(l.flows).minus(counts), o.usage(pids).minus(used)
	ended, kernel := 0, int64(0)
	table := sockets()
	for _, c := range receivers {
		at := connectionOf(c.fd)
		if relay := table[at]; relay.state == established {
			kernel += relay.unsent + table[connection{at.client, at.server}].unread
		} else {
			ended++
		}
	}
	if ended > 0 {
		l.fail("%d of %d receivers were disconnected", ended, len(receivers))
	}
	r := newResult(o, used, counts.sent)
	r.Received, r.Rate = counts.received, float64(counts.received)/used.seconds
	r.Sent, r.Offered = counts.sent, float64(counts.sent)/used.seconds
	r.ClientBusy = 1 - float64(l.idle)/1e9/used.seconds
	all := total(l.flows)
	r.AllSent, r.AllReceived = all.sent, all.received
	r.Extra = map[string]float64{
		"grown":      float64(pss - pssBefore),
		"grown_rss":  float64(rss - rssBefore),
		"grown_end":  float64(pssEnd - pssBefore),
		"pss_before": float64(pssBefore),
		"kernel":     float64(kernel),
		"cpu":        used.server / used.seconds,
	}
	l.finish()
	r.Notes, r.Errors = l.notes, l.errors
	return r, nil
}

const established = "01"

// socket is one end of a TCP connection in /proc/net/tcp: what waits there, in bytes.
type socket struct {
	state          string
	unsent, unread int64 // not acknowledged by the other end; not read by the program
}

// sockets returns those of this machine by their own address and the other's.
func sockets() map[connection]socket {
	found := map[connection]socket{}
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return found
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // number, own address, peer's, state, tx:rx, …
		if len(fields) < 5 {
			continue
		}
		out, in, _ := strings.Cut(fields[4], ":")
		unsent, _ := strconv.ParseInt(out, 16, 64)
		unread, _ := strconv.ParseInt(in, 16, 64)
		found[connection{fields[1], fields[2]}] = socket{fields[3], unsent, unread}
	}
	return found
}

// inKernel returns the bytes that wait for a client in the kernel, at the relay's end and at its own.
func inKernel(c *client) int64 {
	table, at := sockets(), connectionOf(c.fd)
	return table[at].unsent + table[connection{at.client, at.server}].unread
}
