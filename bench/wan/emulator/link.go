package main

import "math/rand/v2"

// Path is one direction of a wide-area link, as it is stated.
type Path struct {
	// DelayNanoseconds is what a packet needs once it is on the wire.
	DelayNanoseconds int64
	// BitsPerSecond is the rate of the wire; zero for one without a limit.
	BitsPerSecond float64
	// BufferBytes is what may wait for the wire; the newest packet is dropped beyond that.
	BufferBytes int64
	// Loss is the share of packets that the wire loses, each by itself.
	Loss float64
}

// Counts are what became of the packets of one direction, and how late they were delivered.
type Counts struct {
	Packets, Bytes int64
	// Lost were lost on the wire, Dropped found the buffer full.
	Lost, Dropped int64
	// Late are packets that were handed over more than a millisecond after their time.
	Late int64
	// LatestNanoseconds is how late the latest was.
	LatestNanoseconds int64
}

const lateNanoseconds = 1_000_000

// Link is one direction of a wide-area link: a drop-tail buffer, a wire that sends one packet after
// the other at its rate, loses some, and needs a while for each.
//
// It does no I/O and knows no clock: times are passed in, in nanoseconds, and never go back. Packets
// arrive in the order in which they were sent, since all need the same while: a ring is enough where
// jitter would need a heap.
type Link struct {
	path   Path
	random *rand.Rand
	free   int64
	ring   []parcel
	head   int
	count  int
	Counts
}

type parcel struct {
	packet []byte
	due    int64
}

// NewLink makes a link whose losses are those of the seed.
func NewLink(path Path, seed, stream uint64) *Link {
	return &Link{
		path:   path,
		random: rand.New(rand.NewPCG(seed, stream)),
		ring:   make([]parcel, 1024),
	}
}

// Backlog says how many bytes wait for the wire or are being put on it.
func (l *Link) Backlog(now int64) int64 {
	if l.free <= now {
		return 0
	}
	return int64(float64(l.free-now) * l.path.BitsPerSecond / 8e9)
}

// Send takes a packet at this time. It keeps the packet until Take gives it back, unless it returns
// false: then the packet is lost or dropped, and the caller's again.
//
// A packet that the wire loses has used the wire like any other.
func (l *Link) Send(now int64, packet []byte) bool {
	size := int64(len(packet))
	start := now
	if l.path.BitsPerSecond > 0 {
		if l.Backlog(now)+size > l.path.BufferBytes {
			l.Dropped++
			return false
		}
		start = max(l.free, now)
		l.free = start + int64(float64(size)*8e9/l.path.BitsPerSecond)
		start = l.free
	}
	if l.path.Loss > 0 && l.random.Float64() < l.path.Loss {
		l.Lost++
		return false
	}
	l.push(parcel{packet, start + l.path.DelayNanoseconds})
	return true
}

// Due says when the next packet arrives, and whether one is under way at all.
func (l *Link) Due() (int64, bool) {
	if l.count == 0 {
		return 0, false
	}
	return l.ring[l.head].due, true
}

// Take returns the next packet that has arrived by now; nil if none has. The packet is the caller's.
func (l *Link) Take(now int64) []byte {
	if l.count == 0 || l.ring[l.head].due > now {
		return nil
	}
	first := l.ring[l.head]
	l.ring[l.head] = parcel{}
	l.head = (l.head + 1) % len(l.ring)
	l.count--
	l.Packets++
	l.Bytes += int64(len(first.packet))
	late := now - first.due
	if late > lateNanoseconds {
		l.Late++
	}
	l.LatestNanoseconds = max(l.LatestNanoseconds, late)
	return first.packet
}

func (l *Link) push(last parcel) {
	if l.count == len(l.ring) {
		grown := make([]parcel, 2*len(l.ring))
		n := copy(grown, l.ring[l.head:])
		copy(grown[n:], l.ring[:l.head])
		l.ring, l.head = grown, 0
	}
	l.ring[(l.head+l.count)%len(l.ring)] = last
	l.count++
}
