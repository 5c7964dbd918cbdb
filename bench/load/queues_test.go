package main

import (
	"bytes"
	"net"
	"syscall"
	"testing"
)

func TestOfferedIsAMultipleOfWhatIsTaken(t *testing.T) {
	o := &options{take: 8, offer: 2} // 1 MB/s, and 2 MB/s
	if got := o.intervalOf(2000 - overhead); got != 1e6 {
		t.Errorf("%v ns between packets, want 1 ms", got)
	}
}

func TestLostIsWhatDidNotArrive(t *testing.T) {
	for all, want := range map[totals]float64{{0, 0}: 0, {10, 10}: 0, {10, 7}: 0.3} {
		r := &result{}
		r.lose(all)
		if r.LostShare != want || r.Lost != all.sent-all.received {
			t.Errorf("%v: %d, a share of %v is lost; want %v", all, r.Lost, r.LostShare, want)
		}
	}
}

func TestALoadIsToldOfWhatArrives(t *testing.T) {
	l, f := pairOfFlow(t)
	var sequences []uint64
	l.now = 70
	f.arrived = func(sequence uint64, delay int64) {
		sequences = append(sequences, sequence)
		if delay != 70 {
			t.Errorf("delay %d, want 70", delay)
		}
	}
	for _, sequence := range []uint64{0, 4} {
		l.packet(f.dst, f.src.public[:], packetOf(f, sequence))
	}
	if len(sequences) != 2 || sequences[0] != 0 || sequences[1] != 4 {
		t.Errorf("told of %v", sequences)
	}
}

func TestSlowReadersKeepToTheirRateAndStep(t *testing.T) {
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[1])
	c := &client{identity: newIdentity(), fd: pair[0]}
	l.clients = append(l.clients, c)
	frames := bytes.Repeat([]byte{frameKeepAlive, 0, 0, 0, 0}, 1000)
	if _, err := syscall.Write(pair[1], frames); err != nil {
		t.Fatal(err)
	}
	s := &slowReader{client: c, rate: 1000, step: 100}
	for millisecond := range int64(1000) {
		l.now = (1 + millisecond) * 1e6
		s.turn(l)
	}
	if s.taken != 900 {
		t.Errorf("%v bytes in 0.999 s, want 9 times 100", s.taken)
	}
}

func TestWhatWaitsInTheKernelIsFound(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	relay, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{conn: conn, fd: -1}
	if err := c.detach(); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if _, err := relay.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	// On its way it may count at both ends.
	if got := inKernel(c); got != 1000 && got != 2000 {
		t.Errorf("%d bytes, want 1000", got)
	}
	if state := sockets()[connectionOf(c.fd)].state; state != established {
		t.Errorf("state %q of an open connection", state)
	}
	relay.Close()
	if state := sockets()[connectionOf(c.fd)].state; state == established {
		t.Error("a closed connection is said to be open")
	}
}
