package main

import (
	"math"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestSumsOfDeals(t *testing.T) {
	sum := together([]*result{
		{
			Load: "inflight", Seconds: 1, Sent: 110, Received: 100, AllSent: 200, AllReceived: 190, Lost: 10,
			ServerCPU: 0.5, ClientBusy: 0.25, Others: 0, Extra: map[string]float64{"across": 2},
			Notes: map[string]int{"peer gone": 1},
		},
		{
			Load: "inflight", Seconds: 3, Sent: 700, Received: 700, AllSent: 800, AllReceived: 800,
			ServerCPU: 1.5, ClientBusy: 0.65, Others: 0.4, Extra: map[string]float64{"across": 5},
			Notes: map[string]int{"peer gone": 2}, Errors: []string{"an error"},
		},
	})
	for what, pair := range map[string][2]float64{
		"rate":        {sum.Rate, 200},
		"offered":     {sum.Offered, 202.5},
		"lost share":  {sum.LostShare, 0.01},
		"server":      {sum.ServerCPU, 1.25},
		"client":      {sum.ClientBusy, 0.55},
		"others":      {sum.Others, 0.3},
		"CPU of each": {sum.CPUEach, 5.0 / 800 * 1e6},
		"across":      {sum.Extra["across"], 3.5},
		"all sent":    {float64(sum.AllSent), 1000},
		"notes":       {float64(sum.Notes["peer gone"]), 3},
		"errors":      {float64(len(sum.Errors)), 1},
	} {
		if math.Abs(pair[0]-pair[1]) > 1e-9 {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
}

func TestEachDealHasItsPartOfTheTime(t *testing.T) {
	calls := 0
	r, err := deal(&options{deals: 4, seconds: 8 * time.Second}, func(o *options) (*result, error) {
		calls++
		return &result{Seconds: o.seconds.Seconds(), Received: uint64(o.deals)}, nil
	})
	if err != nil || calls != 4 || r.Seconds != 8 || r.Received != 4 {
		t.Errorf("%d calls, %+v, %v", calls, r, err)
	}
}

func TestADealWithAnErrorIsTheLast(t *testing.T) {
	calls := 0
	r, err := deal(&options{deals: 4, seconds: time.Second}, func(*options) (*result, error) {
		calls++
		return &result{Seconds: 1, Errors: []string{"an error"}}, nil
	})
	if err != nil || calls != 1 || len(r.Errors) != 1 {
		t.Errorf("%d calls, %+v, %v", calls, r, err)
	}
}

// connected is one end of a connection of which this process has both.
func connected(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	conn, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	c := &client{conn: conn, fd: -1}
	if err := c.detach(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c.fd
}

func TestWhoHasAConnection(t *testing.T) {
	where := connectionOf(connected(t))
	if owner := socketOwners([]int{os.Getpid()})[where]; owner != os.Getpid() {
		t.Errorf("process %d has %+v, and should be this one", owner, where)
	}
	if owner, ok := socketOwners([]int{os.Getppid()})[where]; ok {
		t.Errorf("process %d has %+v, and has nothing to do with it", owner, where)
	}
}

func TestPairsAcrossProcesses(t *testing.T) {
	l, _ := pairOfFlow(t)
	l.clients[0].fd, l.clients[1].fd = connected(t), connected(t)
	used := usage{seconds: 2, server: 3, client: 1}
	found := sharing(l, []int{os.Getpid()}, used)
	if len(l.errors) > 0 || found["serving"] != 1 || found["across"] != 0 || found["processes"] != 1 {
		t.Errorf("%v, errors %v", found, l.errors)
	}
	if found["relay_cores"] != 1.5 || found["client_cores"] != 0.5 || found["pss"] == 0 {
		t.Errorf("%v", found)
	}
	sharing(l, nil, used)
	if len(l.errors) != 1 {
		t.Errorf("nobody has the connections, and the errors are %v", l.errors)
	}
}

func TestAddressesAsTheKernelWritesThem(t *testing.T) {
	address := &syscall.SockaddrInet4{Port: 443, Addr: [4]byte{127, 0, 0, 1}}
	if got := inProc(address); got != "0100007F:01BB" {
		t.Error(got)
	}
}

func TestOthersOfSharedCores(t *testing.T) {
	// Relay and client may be on either core: only the sum says who else was.
	u := usage{seconds: 1, server: 1.2, client: 0.4, serverCore: 0.7, clientCore: 1}
	if got := u.others(true); math.Abs(got-0.04) > 1e-9 {
		t.Errorf("%v of a core went to others, want 0.04", got)
	}
	if got := u.others(false); math.Abs(got-0.57) > 1e-9 {
		t.Errorf("%v of a core went to others, want 0.57", got)
	}
}

func TestAWindowIsSentOnceAfterAPause(t *testing.T) {
	f := &flow{pacing: window, window: 32}
	now := int64(time.Second)
	if got := f.allowed(now); got != 32 {
		t.Fatalf("%d packets, want 32", got)
	}
	f.sent = 32
	if got := f.allowed(now + 1); got != 0 {
		t.Errorf("%d packets more, and none has been lost", got)
	}
	if f.allowed(now + int64(200*time.Millisecond)); f.forgiven != 32 {
		t.Errorf("%d forgiven, want 32: nothing arrives", f.forgiven)
	}
}

func TestANapIsTaken(t *testing.T) {
	l, _ := pairOfFlow(t)
	l.nap = 2 * time.Millisecond
	before := nanotime()
	l.turn()
	if l.now-before < int64(l.nap) {
		t.Errorf("awake after %v", time.Duration(l.now-before))
	}
}
