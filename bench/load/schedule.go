// A schedule for many flows: each sends one packet a period, at a moment of its own.

package main

import "math/rand/v2"

type entry struct {
	due  int64
	flow *flow
}

// schedule is a ring in the order of what is due; since all periods are equal, the order stays.
type schedule struct {
	entries []entry
	next    int
	period  int64
}

// fill gives each flow a random place in the period, which begins now.
func (s *schedule) fill(flows []*flow, period, now int64) {
	s.period = period
	for i, f := range flows {
		// Random within its own slot: spread over the period, but not in step.
		slot := period / int64(len(flows))
		s.entries = append(s.entries, entry{now + int64(i)*slot + rand.Int64N(max(1, slot)), f})
	}
	rand.Shuffle(len(s.entries), func(i, j int) {
		a, b := &s.entries[i], &s.entries[j]
		a.flow, b.flow = b.flow, a.flow
	})
}

func (s *schedule) pump(l *loop) bool {
	worked := false
	for len(s.entries) > 0 {
		e := &s.entries[s.next]
		if e.due > l.now {
			break
		}
		f := e.flow
		e.due += s.period
		if s.next++; s.next == len(s.entries) {
			s.next = 0
		}
		if f.src.fd >= 0 {
			l.write(f.src, f.src.appendFrames(l.out[:0], f, 1, 1, l.now))
		}
		worked = true
	}
	return worked
}

// slowReader is a client that takes only so many bytes a second off its socket.
type slowReader struct {
	client *client
	rate   float64 // bytes a second
	step   int     // bytes that are read at a time; slowStep, if 0
	since  int64
	taken  float64
}

const slowStep = 2048 // bytes

func (s *slowReader) turn(l *loop) bool {
	if s.since == 0 {
		s.since = l.now
		l.watch(s.client, s.client.watching&^1) // EPOLLIN
	}
	step := s.step
	if step == 0 {
		step = slowStep
	}
	allowed := float64(l.now-s.since)/1e9*s.rate - s.taken
	if allowed < float64(step) || s.client.fd < 0 {
		return false
	}
	n := l.read(s.client, step)
	if n == 0 {
		s.taken += allowed // an empty socket saves nothing up
		return false
	}
	s.taken += float64(n)
	return true
}
