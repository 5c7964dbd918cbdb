package main

import (
	"math"
	"testing"
)

const (
	millisecond = int64(1_000_000)
	second      = 1000 * millisecond
)

// arrivals takes all that is under way, each packet at the time at which it is due.
func arrivals(l *Link) (times []int64, packets [][]byte) {
	for {
		due, any := l.Due()
		if !any {
			return times, packets
		}
		if l.Take(due-1) != nil {
			panic("a packet came before its time")
		}
		times, packets = append(times, due), append(packets, l.Take(due))
	}
}

func TestAPacketComesAfterTheDelayAndTheTimeOnTheWire(t *testing.T) {
	// 1250 bytes at 10 Mbit/s are one millisecond.
	l := NewLink(Path{20 * millisecond, 10e6, 10_000, 0}, 1, 0)
	l.Send(5*millisecond, make([]byte, 1250))
	if times, _ := arrivals(l); len(times) != 1 || times[0] != 26*millisecond {
		t.Fatal(times)
	}
}

func TestWithoutARateThereIsOnlyDelay(t *testing.T) {
	l := NewLink(Path{DelayNanoseconds: 7}, 1, 0)
	for range 5000 {
		if !l.Send(3, make([]byte, 1500)) {
			t.Fatal("refused")
		}
	}
	times, _ := arrivals(l)
	if len(times) != 5000 || times[0] != 10 || times[4999] != 10 {
		t.Fatal(len(times))
	}
}

func TestPacketsFollowEachOtherAtTheRate(t *testing.T) {
	l := NewLink(Path{0, 10e6, 1 << 20, 0}, 1, 0)
	for range 4 {
		l.Send(0, make([]byte, 1250))
	}
	// The wire is idle in between, and earns nothing by it.
	l.Send(10*millisecond, make([]byte, 1250))
	times, _ := arrivals(l)
	for i, want := range []int64{1, 2, 3, 4, 11} {
		if times[i] != want*millisecond {
			t.Fatal(times)
		}
	}
}

func TestTheBufferDropsTheNewestAndDrainsAtTheRate(t *testing.T) {
	l := NewLink(Path{0, 10e6, 2500, 0}, 1, 0)
	for i, want := range []bool{true, true, false, false} {
		if l.Send(0, make([]byte, 1250)) != want {
			t.Fatal("packet", i)
		}
	}
	if l.Send(millisecond-1000, make([]byte, 1250)) {
		t.Fatal("there was no room yet")
	}
	if !l.Send(millisecond, make([]byte, 1250)) {
		t.Fatal("there was room")
	}
	if l.Backlog(millisecond) != 2500 || l.Backlog(5*millisecond) != 0 {
		t.Fatal(l.Backlog(millisecond), l.Backlog(5*millisecond))
	}
	if l.Dropped != 3 || l.Lost != 0 {
		t.Fatal(l.Counts)
	}
}

func TestOrderIsKeptWhileTheRingGrows(t *testing.T) {
	l := NewLink(Path{DelayNanoseconds: 100, BitsPerSecond: 8e9, BufferBytes: 1 << 30}, 1, 0)
	now, sent, next := int64(0), 0, 0
	check := func(packet []byte) {
		if int(packet[0])|int(packet[1])<<8 != next {
			t.Fatal("out of order", packet, next)
		}
		next++
	}
	for sent < 9000 {
		for range 3 {
			l.Send(now, []byte{byte(sent), byte(sent >> 8)})
			sent++
		}
		now += 2
		if packet := l.Take(now); packet != nil {
			check(packet)
		}
	}
	_, packets := arrivals(l)
	for _, packet := range packets {
		check(packet)
	}
	if next != sent {
		t.Fatal(next, sent)
	}
}

func TestLossIsTheShareStatedAndThatOfTheSeed(t *testing.T) {
	const n, share = 200_000, 0.005
	lost := func(seed, stream uint64) (which []int) {
		l := NewLink(Path{Loss: share}, seed, stream)
		for i := range n {
			if !l.Send(int64(i), nil) {
				which = append(which, i)
			}
		}
		if l.Lost != int64(len(which)) {
			t.Fatal(l.Counts, len(which))
		}
		return which
	}
	first, again, other, beside := lost(1, 0), lost(1, 0), lost(2, 0), lost(1, 1)
	// Five standard deviations.
	if deviation := math.Sqrt(n * share); math.Abs(float64(len(first))-n*share) > 5*deviation {
		t.Fatal(len(first))
	}
	same := func(one, two []int) bool {
		for i := range min(len(one), len(two)) {
			if one[i] != two[i] {
				return false
			}
		}
		return len(one) == len(two)
	}
	if !same(first, again) || same(first, other) || same(first, beside) {
		t.Fatal("losses are not those of the seed and the stream")
	}
}

func TestAPacketThatIsLostHasUsedTheWire(t *testing.T) {
	l := NewLink(Path{0, 10e6, 1 << 20, 1}, 1, 0)
	for range 3 {
		l.Send(0, make([]byte, 1250))
	}
	if l.Backlog(0) != 3750 {
		t.Fatal(l.Backlog(0))
	}
	if _, any := l.Due(); any {
		t.Fatal("one arrived")
	}
}

func TestLongRunsKeepTheRate(t *testing.T) {
	// A sender that always has something gets the rate: rounding must not add up.
	l := NewLink(Path{20 * millisecond, 100e6, 250_000, 0}, 1, 0)
	for now := int64(0); now < 10*second; now += 100_000 {
		for l.Send(now, make([]byte, 1500)) {
		}
		for l.Take(now) != nil {
		}
	}
	rate := float64(l.Bytes) * 8 / 9.98
	if math.Abs(rate/100e6-1) > 0.001 {
		t.Fatal(rate)
	}
}

func TestLatenessIsCounted(t *testing.T) {
	l := NewLink(Path{DelayNanoseconds: millisecond}, 1, 0)
	l.Send(0, make([]byte, 10))
	l.Send(0, make([]byte, 10))
	l.Take(millisecond + 500)
	l.Take(4 * millisecond)
	if l.Late != 1 || l.LatestNanoseconds != 3*millisecond || l.Packets != 2 || l.Bytes != 20 {
		t.Fatal(l.Counts)
	}
}
