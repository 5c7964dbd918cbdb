package main

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pairOfFlow is a loop with two clients that have no sockets, and a flow between them.
func pairOfFlow(t *testing.T) (*loop, *flow) {
	t.Helper()
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	for i := range 2 {
		l.clients = append(l.clients, &client{identity: newIdentity(), index: i, fd: -1})
	}
	f := l.flow(l.clients[0], l.clients[1], 200, paced)
	f.sent = 10
	return l, f
}

func packetOf(f *flow, sequence uint64) []byte {
	return appendPacket(nil, f.id, sequence, 0, f.size)
}

func TestGoodPacketsAreCounted(t *testing.T) {
	l, f := pairOfFlow(t)
	for sequence := range uint64(10) {
		l.packet(f.dst, f.src.public[:], packetOf(f, sequence))
	}
	if len(l.errors) > 0 || f.received != 10 || l.gaps != 0 {
		t.Errorf("errors %v, received %d, gaps %d", l.errors, f.received, l.gaps)
	}
}

func TestMissingPacketsAreGaps(t *testing.T) {
	l, f := pairOfFlow(t)
	for _, sequence := range []uint64{0, 1, 5, 9} {
		l.packet(f.dst, f.src.public[:], packetOf(f, sequence))
	}
	if len(l.errors) > 0 || l.gaps != 6 {
		t.Errorf("errors %v, gaps %d", l.errors, l.gaps)
	}
}

func TestEveryWrongByteIsSeen(t *testing.T) {
	for i := range 200 {
		l, f := pairOfFlow(t)
		packet := packetOf(f, 3)
		if i >= 16 && i < 24 {
			continue // the time: nothing to compare it with
		}
		packet[i] ^= 0x40
		l.packet(f.dst, f.src.public[:], packet)
		if len(l.errors) == 0 {
			t.Errorf("byte %d was changed and nobody noticed", i)
		}
	}
}

func TestWrongPacketsAreErrors(t *testing.T) {
	cases := map[string]struct {
		want string
		act  func(l *loop, f *flow)
	}{
		"twice": {"out of order or twice", func(l *loop, f *flow) {
			l.packet(f.dst, f.src.public[:], packetOf(f, 0))
			l.packet(f.dst, f.src.public[:], packetOf(f, 0))
		}},
		"order": {"out of order", func(l *loop, f *flow) {
			l.packet(f.dst, f.src.public[:], packetOf(f, 4))
			l.packet(f.dst, f.src.public[:], packetOf(f, 3))
		}},
		"receiver": {"for client 1", func(l *loop, f *flow) {
			l.packet(f.src, f.src.public[:], packetOf(f, 0))
		}},
		"sender": {"another sender's key", func(l *loop, f *flow) {
			l.packet(f.dst, f.dst.public[:], packetOf(f, 0))
		}},
		"future": {"never sent", func(l *loop, f *flow) {
			l.packet(f.dst, f.src.public[:], packetOf(f, 10))
		}},
		"short": {"199 bytes", func(l *loop, f *flow) {
			l.packet(f.dst, f.src.public[:], appendPacket(nil, f.id, 0, 0, 199))
		}},
		"garbage": {"no packet of ours", func(l *loop, f *flow) {
			l.packet(f.dst, f.src.public[:], []byte("hello"))
		}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			l, f := pairOfFlow(t)
			test.act(l, f)
			if len(l.errors) == 0 || !strings.Contains(l.errors[0], test.want) {
				t.Errorf("errors %v, want one that says %q", l.errors, test.want)
			}
		})
	}
}

func TestFramesInAnyPieces(t *testing.T) {
	c := &client{identity: newIdentity(), fd: -1}
	var stream []byte
	for size := range 40 {
		stream = append(stream, frameRecvPacket, 0, 0, 0, byte(size))
		stream = append(stream, bytes.Repeat([]byte{byte(size)}, size)...)
	}
	for _, step := range []int{1, 2, 7, 64, len(stream)} {
		next := 0
		for part := range slices.Chunk(stream, step) {
			plain := append(slices.Clone(c.tail), part...)
			err := c.frames(plain, func(_ byte, body []byte) error {
				if !bytes.Equal(body, bytes.Repeat([]byte{byte(next)}, next)) {
					t.Errorf("in steps of %d: frame %d is % x", step, next, body)
				}
				next++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if next != 40 {
			t.Errorf("in steps of %d: %d frames", step, next)
		}
	}
}

func TestWebsocketFramesInAnyPieces(t *testing.T) {
	payload := pattern[:70000]
	stream := []byte{0x89, 2, 'h', 'i'} // a ping
	for _, size := range []int{0, 1, 125} {
		stream = append(append(stream, 0x82, byte(size)), payload[:size]...)
	}
	stream = append(append(stream, 0x82, 126, 1000>>8, 1000&0xff), payload[:1000]...)
	stream = append(append(stream, 0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70), payload...)
	want := slices.Concat(payload[:1], payload[:125], payload[:1000], payload)
	for _, step := range []int{1, 3, 100, len(stream)} {
		c := &client{deframe: &deframer{}}
		var got []byte
		for part := range slices.Chunk(stream, step) {
			var err error
			if got, err = c.unwrap(got, part); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("in steps of %d: %d bytes, want %d", step, len(got), len(want))
		}
	}
}

func TestMaskIsUndoneByTheMask(t *testing.T) {
	data := pattern[:1437]
	message := appendMessage(nil, data)
	body := slices.Clone(message[8:])
	for i := range body {
		body[i] ^= message[4+i%4]
	}
	if !bytes.Equal(body, data) {
		t.Error("the payload is not what was masked")
	}
}

func TestRecordsAgainstCryptoTLS(t *testing.T) {
	config, err := mirrorTLS()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	config.SessionTicketsDisabled = false // tickets come between, as with real servers
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		server := tls.Server(conn, config)
		defer server.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := &client{conn: conn, fd: -1}
	if _, err := c.handshake(&tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 100, 1437, maxPlaintext} {
		update, err := c.out.appendKeyUpdate(nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(update); err != nil {
			t.Fatal(err)
		}
		if err := c.write(pattern[:size]); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for len(got) < size {
			more, err := c.readPlain()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, more...)
		}
		if !bytes.Equal(got, pattern[:size]) {
			t.Errorf("%d bytes came back as others", size)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	for n := range int64(100_001) {
		h.add(n * 1000)
	}
	for _, q := range []float64{0.01, 0.5, 0.99, 0.999} {
		want := q * 100_000_000
		if got := h.quantile(q); got < want*0.98 || got > want*1.02 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
}

func TestPacing(t *testing.T) {
	f := &flow{pacing: paced, interval: 1000, burst: 1, due: 5000}
	for now, want := range map[int64]int{4999: 0, 5000: 1, 5999: 1, 6000: 2, 15000: 11} {
		if got := f.allowed(now); got != want {
			t.Errorf("at %d: %d packets, want %d", now, got, want)
		}
	}
	if got := f.allowed(5000 + 10*maxLag); got > int(maxLag/1000)+2 {
		t.Errorf("a burst of %d packets after a pause", got)
	}
	f = &flow{pacing: paced, interval: 1000, burst: 16, due: 5000}
	if got := f.allowed(5001); got != 16 {
		t.Errorf("a burst of %d packets, want 16", got)
	}
}

// lateRelay is a relay of two clients without TLS that drops the first packets from src to dst.
func lateRelay(t *testing.T, drop int) (*loop, *flow) {
	t.Helper()
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	var relay [2]int
	for i := range relay {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		relay[i] = pair[1]
		c := &client{identity: newIdentity(), index: i, fd: pair[0], watching: syscall.EPOLLIN}
		l.clients = append(l.clients, c)
		l.byFD[int32(c.fd)] = c
		event := syscall.EpollEvent{Events: c.watching, Fd: int32(c.fd)}
		if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, c.fd, &event); err != nil {
			t.Fatal(err)
		}
	}
	f := l.flow(l.clients[0], l.clients[1], 200, paced)
	f.interval, f.due = 1e6, float64(nanotime())
	l.senders = []*flow{f}
	go func() {
		defer syscall.Close(relay[0])
		defer syscall.Close(relay[1])
		frame := make([]byte, overhead+f.size)
		for n := 0; ; n++ {
			for have := 0; have < len(frame); {
				count, err := syscall.Read(relay[0], frame[have:])
				if err != nil || count == 0 {
					return
				}
				have += count
			}
			if n < drop {
				continue
			}
			frame[0] = frameRecvPacket
			copy(frame[frameHeader:], f.src.public[:])
			if _, err := syscall.Write(relay[1], frame); err != nil {
				return
			}
		}
	}()
	return l, f
}

func TestWayIsOpenOnceAPacketArrives(t *testing.T) {
	l, f := lateRelay(t, 2)
	if err := l.openWay(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if f.sent-f.received != 2 || f.expected != f.sent || l.gaps != 0 || l.sending || f.pacing != paced || len(l.errors) > 0 {
		t.Errorf("sent %d, received %d, gaps %d, sending %v, pacing %v, errors %v", f.sent, f.received, l.gaps, l.sending, f.pacing, l.errors)
	}
	o := &options{pids: []int{os.Getpid()}, pack: 1, strict: true, seconds: 50 * time.Millisecond}
	r := measure(l, o)
	if r.Lost != 0 || r.Received == 0 || len(r.Errors) > 0 {
		t.Errorf("%d lost, %d received, errors %v", r.Lost, r.Received, r.Errors)
	}
	if r.AllSent != f.sent || r.AllReceived != f.received || r.AllSent-r.AllReceived != 2 {
		t.Errorf("%d sent in all, %d received in all; the flow has %d and %d", r.AllSent, r.AllReceived, f.sent, f.received)
	}
}

func TestWayThatDoesNotOpen(t *testing.T) {
	l, _ := lateRelay(t, 1<<30)
	if err := l.openWay(time.Millisecond); err == nil || !strings.Contains(err.Error(), "flow 0") {
		t.Errorf("error %v, want one about flow 0", err)
	}
}

func TestTreeOfTwo(t *testing.T) {
	var children []int
	for range 2 {
		child := exec.Command("cat")
		stdin, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stdin.Close(); _ = child.Wait() })
		children = append(children, child.Process.Pid)
	}
	if found := tree(children...); !slices.Equal(found, children) {
		t.Errorf("tree(%v) is %v", children, found)
	}
}

func TestEveryOtherClientGoesToTheSecondRelay(t *testing.T) {
	var relays [2]string
	came := make(chan int, 8)
	for i := range relays {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		relays[i] = listener.Addr().String()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				came <- i
				conn.Close()
			}
		}()
	}
	_, _ = dialMany(&target{address: relays[0], second: relays[1], plain: true}, 5)
	var counts [2]int
	for range 5 {
		counts[<-came]++
	}
	if counts != [2]int{3, 2} {
		t.Errorf("%v clients, want 3 and 2", counts)
	}
}

func TestPacerKeepsToItsRate(t *testing.T) {
	var p pacer
	const rate, each = 1e6, 1000
	begin := nanotime()
	p.begin(rate, begin+int64(50*time.Millisecond))
	for p.spend(each) {
	}
	lasted := float64(nanotime()-begin) / 1e9
	if lasted < 0.05 {
		t.Errorf("it said after %.3f s that 50 ms were over", lasted)
	}
	if most := int64(0.051*rate) + each; p.sent.Load() > most {
		t.Errorf("%d bytes passed, more than %d", p.sent.Load(), most)
	}
}

func TestEndlessScripts(t *testing.T) {
	next := endless("ab", 'c')
	var got []byte
	for range 5 {
		got = append(got, next())
	}
	if string(got) != "abccc" {
		t.Errorf("got %q", got)
	}
}

func TestOnceSendsAllInRecords(t *testing.T) {
	what := bytes.Repeat([]byte("ab"), maxPlaintext)
	next := once(what)(&client{})
	var got []byte
	for part := next(nil); len(part) > 0; part = next(nil) {
		if len(part) > maxPlaintext {
			t.Errorf("a part of %d bytes", len(part))
		}
		got = append(got, part...)
	}
	if !bytes.Equal(got, what) {
		t.Error("something else was sent")
	}
}

func TestWhatIsLostIsVeryLate(t *testing.T) {
	var h heard
	for number := range uint64(100) {
		h.asked(number)
		if number > 1 {
			h.answered(number, int64(time.Millisecond))
		}
	}
	h.answered(5, int64(time.Hour)) // twice
	got := h.seen()
	if got.Sent != 100 || got.Lost != 2 || got.P50 > 1.1 || got.P99 < 9000 {
		t.Errorf("got %+v", got)
	}
}
