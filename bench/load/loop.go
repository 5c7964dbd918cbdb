// The event loop: one thread that polls all sockets of the load and never sleeps while it sends,
// unless it shares its core with the relay.
//
// Goroutines would not do on one core: a sender that is never blocked keeps the receivers from
// being polled, and the client would measure itself. Here what has arrived is always read before
// more is sent, and nothing is allocated.
//
// How much of its time the loop finds nothing to do is counted: `busy` in the results is the rest.
// A client that is never idle may be what limits the rate; one that is idle half of its time isn't.

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
	"time"
	"unsafe"
)

const (
	readSize  = 256 << 10
	writeSize = 64 << 10 // of one write, about

	// A sender that is behind its schedule catches up with a burst; this bounds the burst. What
	// is further behind is not offered at all, and shows as a lower rate.
	maxLag = int64(250 * time.Microsecond)

	maxErrors = 10
)

var started = time.Now()

func nanotime() int64 { return int64(time.Since(started)) }

type pacing int

const (
	paced  pacing = iota // one packet each interval
	window               // so many packets under way
	flat                 // whatever the socket takes
	echo                 // one packet for each that arrived on the flow `answers`
	listed               // sent by a schedule that covers many flows
)

// flow is all packets from one client to another.
type flow struct {
	id       uint32
	src, dst *client
	size     int
	pacing   pacing

	interval float64 // nanoseconds
	burst    int     // packets at a time
	due      float64
	window   int
	forgiven uint64 // sequence numbers below are not waited for any more
	owed     int    // echoes
	answers  *flow
	reply    bool // an echo keeps the time of what it answers
	made     int64
	times    *histogram // of latencies; nil where they are of no interest
	arrived  func(sequence uint64, delay int64)

	sent        uint64 // also the next sequence number
	received    uint64
	expected    uint64 // the next sequence number to arrive
	lastArrival int64

	header [overhead]byte
}

// appendFrame appends the flow's next packet as a SendPacket frame.
func (f *flow) appendFrame(buf []byte, now int64) []byte {
	buf = append(buf, f.header[:]...)
	buf = appendPacket(buf, f.id, f.sent, now, f.size)
	f.sent++
	return buf
}

type loop struct {
	epoll   int
	clients []*client
	byFD    map[int32]*client
	flows   []*flow
	senders []*flow // those that are looked at each turn
	slow    []*slowReader
	pack    int

	schedule schedule

	sending bool
	strict  bool   // give up as soon as a packet is missing
	gaps    uint64 // packets that were overtaken by later ones: lost
	now     int64
	idle    int64
	nap     time.Duration // between turns, in place of spinning; see shared.go
	timing  bool          // latencies are of interest
	errors  []string
	notes   map[string]int
	dropped int // errors beyond maxErrors

	events [256]syscall.EpollEvent
	raw    []byte
	middle []byte
	plain  []byte
	out    []byte
}

func newLoop() (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	const slack = maxPacket + maxRecordSize + 4096
	return &loop{
		epoll:  fd,
		byFD:   map[int32]*client{},
		pack:   1,
		notes:  map[string]int{},
		raw:    make([]byte, readSize+slack),
		middle: make([]byte, 0, readSize+slack),
		plain:  make([]byte, 0, readSize+2*slack),
		out:    make([]byte, 0, 2*writeSize+2*slack),
	}, nil
}

func (l *loop) add(c *client) error {
	if err := c.detach(); err != nil {
		return err
	}
	c.index = len(l.clients)
	l.clients = append(l.clients, c)
	l.byFD[int32(c.fd)] = c
	c.watching = syscall.EPOLLIN
	event := syscall.EpollEvent{Events: c.watching, Fd: int32(c.fd)}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, c.fd, &event); err != nil {
		return err
	}
	l.received(c, c.rawTail)
	return nil
}

func (l *loop) watch(c *client, events uint32) {
	if c.watching == events || c.fd < 0 {
		return
	}
	c.watching = events
	event := syscall.EpollEvent{Events: events, Fd: int32(c.fd)}
	_ = syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_MOD, c.fd, &event)
}

func (l *loop) close() {
	for _, c := range l.clients {
		c.close()
	}
	syscall.Close(l.epoll)
}

// flow makes a flow; what starts it is up to the load.
func (l *loop) flow(src, dst *client, size int, pacing pacing) *flow {
	f := &flow{id: uint32(len(l.flows)), src: src, dst: dst, size: size, pacing: pacing, burst: 1}
	f.header[0] = frameSendPacket
	binary.BigEndian.PutUint32(f.header[1:], uint32(keyLength+size))
	copy(f.header[frameHeader:], dst.public[:])
	l.flows = append(l.flows, f)
	return f
}

func (l *loop) fail(format string, args ...any) {
	if len(l.errors) >= maxErrors {
		l.dropped++
		return
	}
	l.errors = append(l.errors, fmt.Sprintf(format, args...))
}

func (l *loop) lose(c *client, err error) {
	l.fail("client %d lost its connection: %v", c.index, err)
	delete(l.byFD, int32(c.fd))
	c.close()
}

// run turns the loop for a time, spinning but for naps.
func (l *loop) run(duration time.Duration) {
	l.now = nanotime()
	for end := l.now + int64(duration); l.now < end && !(l.strict && l.gaps > 0); {
		l.turn()
	}
}

// turn reads from every socket that has something, and sends what is due.
func (l *loop) turn() {
	before := l.now
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events)), uintptr(len(l.events)), 0, 0, 0)
	if errno != 0 {
		n = 0
	}
	worked := n > 0
	for i := range int(n) {
		event := &l.events[i]
		c := l.byFD[event.Fd]
		if c == nil {
			continue
		}
		if event.Events&syscall.EPOLLOUT != 0 {
			l.write(c, nil)
		}
		if event.Events&^syscall.EPOLLOUT != 0 && c.fd >= 0 {
			l.read(c, readSize)
		}
		l.now = nanotime()
		l.pump()
	}
	l.now = nanotime()
	for _, s := range l.slow {
		worked = s.turn(l) || worked
	}
	worked = l.pump() || worked
	after := nanotime()
	if !worked {
		l.idle += after - before
	}
	l.now = after
	if l.nap > 0 {
		sleep(l.nap)
		l.now = nanotime()
	}
}

// read takes what a socket holds and acts on it.
func (l *loop) read(c *client, size int) int {
	kept := copy(l.raw, c.rawTail)
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&l.raw[kept])), uintptr(min(size, len(l.raw)-kept)))
	if errno != 0 {
		if errno != syscall.EAGAIN && errno != syscall.EINTR {
			l.lose(c, errno)
		}
		return 0
	}
	if n == 0 {
		l.lose(c, io.EOF)
		return 0
	}
	l.now = nanotime()
	l.received(c, l.raw[:kept+int(n)])
	return int(n)
}

func (l *loop) received(c *client, raw []byte) {
	var err error
	plain := append(l.plain[:0], c.tail...)
	if c.deframe == nil {
		plain, err = c.decrypt(plain, raw)
	} else if l.middle, err = c.decrypt(l.middle[:0], raw); err == nil {
		plain, err = c.unwrap(plain, l.middle)
	}
	if err == nil {
		err = c.frames(plain, func(kind byte, body []byte) error { return l.frame(c, kind, body) })
	}
	if err != nil {
		l.lose(c, err)
	}
}

func (l *loop) frame(c *client, kind byte, body []byte) error {
	switch kind {
	case frameRecvPacket:
		if len(body) < keyLength {
			return fmt.Errorf("RecvPacket frame of %d bytes", len(body))
		}
		l.packet(c, body[:keyLength], body[keyLength:])
	case framePing:
		l.write(c, c.appendControl(l.out[:0], framePong, body))
	case frameServerInfo, frameServerKey, frameKeepAlive:
	case framePeerGone:
		l.notes["peer gone"]++
	case frameHealth:
		l.notes["health: "+string(body)]++
	case frameRestarting:
		l.notes["restarting"]++
	default:
		return fmt.Errorf("frame of type %#x with %d bytes", kind, len(body))
	}
	return nil
}

// packet checks one packet that c has received.
func (l *loop) packet(c *client, source, packet []byte) {
	id, sequence, made, err := parsePacket(packet)
	if err != nil {
		l.fail("%v", err)
		return
	}
	if id >= uint32(len(l.flows)) {
		l.fail("packet of flow %d, which does not exist", id)
		return
	}
	f := l.flows[id]
	switch {
	case f.dst != c:
		l.fail("client %d got a packet for client %d", c.index, f.dst.index)
	case key(source) != f.src.public:
		l.fail("a packet of flow %d came under another sender's key", id)
	case len(packet) != f.size:
		l.fail("packet %d of flow %d has %d bytes instead of %d", sequence, id, len(packet), f.size)
	case sequence < f.expected:
		l.fail("packet %d of flow %d came behind packet %d: out of order or twice", sequence, id, f.expected-1)
	case sequence >= f.sent:
		l.fail("packet %d of flow %d was never sent", sequence, id)
	}
	f.received++
	if sequence > f.expected {
		l.gaps += sequence - f.expected
	}
	f.expected = max(f.expected, sequence+1)
	f.lastArrival = l.now
	if l.timing && f.times != nil {
		f.times.add(l.now - made)
	}
	if f.arrived != nil {
		f.arrived(sequence, l.now-made)
	}
	if f.answers != nil {
		f.answers.owed++
		f.answers.made = made
	}
}

// pump sends what is due.
func (l *loop) pump() bool {
	if !l.sending {
		return false
	}
	worked := false
	for _, f := range l.senders {
		if len(f.src.unsent) > 0 || f.src.fd < 0 {
			continue
		}
		if n := f.allowed(l.now); n > 0 {
			n = min(n, max(1, writeSize/(f.size+overhead)))
			if f.pacing == paced {
				f.due += float64(n) * f.interval
			}
			f.owed = max(0, f.owed-n)
			made := l.now
			if f.reply {
				made = f.made
			}
			l.write(f.src, f.src.appendFrames(l.out[:0], f, n, l.pack, made))
			worked = true
		}
	}
	return l.schedule.pump(l) || worked
}

// allowed returns how many packets the flow may send now.
func (f *flow) allowed(now int64) int {
	switch f.pacing {
	case paced:
		period := f.interval * float64(f.burst)
		behind := float64(now) - f.due
		if behind < 0 {
			return 0
		}
		if behind > float64(maxLag)+period {
			f.due = float64(now-maxLag) - period
			behind = float64(maxLag) + period
		}
		return f.burst * (1 + int(behind/period))
	case window:
		under := int(f.sent - max(f.expected, f.forgiven))
		if under == 0 {
			f.lastArrival = now // what is waited for is sent from now on
		}
		if under >= f.window && now-f.lastArrival > int64(100*time.Millisecond) {
			// The last ones were lost, so that nothing will say so.
			f.forgiven, f.lastArrival = f.sent, now
		}
		return f.window - under
	case flat:
		return 1 << 30
	case echo:
		return f.owed
	}
	return 0
}

// write sends data, and keeps what the socket does not take.
func (l *loop) write(c *client, data []byte) {
	if c.fd < 0 {
		return
	}
	if len(c.unsent) > 0 {
		c.unsent = append(c.unsent, data...)
		data = c.unsent
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)))
	if errno != 0 {
		if errno != syscall.EAGAIN && errno != syscall.EINTR {
			l.lose(c, errno)
			return
		}
		n = 0
	}
	c.unsent = append(c.unsent[:0], data[n:]...)
	if len(c.unsent) > 0 {
		l.watch(c, c.watching|syscall.EPOLLOUT)
	} else {
		l.watch(c, c.watching&^syscall.EPOLLOUT)
	}
}

// drain stops sending and waits until the flows have nothing under way, or no more of it arrives.
func (l *loop) drain(flows []*flow, limit time.Duration) {
	l.sending = false
	quiet := int64(300 * time.Millisecond)
	l.now = nanotime()
	end := l.now + int64(limit)
	last := l.now
	before := total(flows)
	for l.now < end && l.now-last < quiet && before.received < before.sent {
		l.turn()
		if now := total(flows); now != before || l.unsent() {
			before, last = now, l.now
		}
	}
}

func (l *loop) unsent() bool {
	for _, c := range l.clients {
		if len(c.unsent) > 0 {
			return true
		}
	}
	return false
}

type totals struct{ sent, received uint64 }

func total(flows []*flow) totals {
	var t totals
	for _, f := range flows {
		t.sent += f.sent
		t.received += f.received
	}
	return t
}

func (t totals) minus(o totals) totals { return totals{t.sent - o.sent, t.received - o.received} }

// rest lets time pass without spinning: what comes is read, nothing is sent.
func (l *loop) rest(duration time.Duration) {
	for end := time.Now().Add(duration); time.Now().Before(end); {
		_, _ = syscall.EpollWait(l.epoll, l.events[:1], 50)
		l.turn()
	}
}

// finish is called once when everything is over: it tells what is wrong in the end.
func (l *loop) finish() {
	if l.dropped > 0 {
		l.errors = append(l.errors, fmt.Sprintf("and %d more", l.dropped))
		l.dropped = 0
	}
}
