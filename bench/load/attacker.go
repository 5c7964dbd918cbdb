// `load attack`: one that means harm, and how fast it may be. tests/hostile says which attacks there
// are and what is looked at meanwhile; attack_*.go what each sends.
//
// It says "ready" when it has all that it needs in advance, begins at a line on standard input,
// says "done" at the end, keeps its connections until the next line, and prints what it has done.

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	segment = 1448
	// headers are those of IP and TCP, with timestamps, of each segment.
	headers = 52
	// opening is what SYN, ACK, FIN and the last ACK take.
	opening = 60 + 3*headers
	udpIP   = 28

	openAtOnce = 64
	// impatience is how long an attacker waits that could not connect, or for an answer.
	impatience = 20 * time.Millisecond
	patience   = 2 * time.Second

	// Pieces are sent one at a time, not in the bursts that Go's sleep of a millisecond makes, which
	// the relay would read as one.
	piece    = 64   // bytes
	least    = 20e3 // nanoseconds
	sleepers = 8
)

var errOver = errors.New("the attack is over")

// attack gets ready, and returns what to do then, until the attacker's time is over.
type attack func(a *attacker) (func(), error)

// attacker is where to, how many at once, how fast and how long.
type attacker struct {
	target
	stun   string
	count  int
	spread bool
	// proxied has all connections come from a proxy's network; spread is said of its clients then.
	proxied bool
	at      pacer
	end     atomic.Int64 // of nanotime; 0 before the attack begins

	opened, ended, admitted, refused atomic.Int64

	mutex sync.Mutex
	kept  []net.Conn
	notes map[string]int
}

// outcome is what an attack has come to, as JSON.
type outcome struct {
	// Sent is in bytes, of IP packets.
	Sent    int64   `json:"sent"`
	Seconds float64 `json:"seconds"`
	// Ended counts connections that the relay has ended before the attack was over.
	Opened   int64          `json:"opened"`
	Ended    int64          `json:"ended"`
	Admitted int64          `json:"admitted"`
	Refused  int64          `json:"refused"`
	Notes    map[string]int `json:"notes"`
}

func runAttack(arguments []string) error {
	a := &attacker{notes: map[string]int{}}
	flags := flag.NewFlagSet("attack", flag.ExitOnError)
	name := flags.String("name", "", "name of the attack")
	flags.StringVar(&a.address, "address", "", "ip:port of the relay")
	flags.BoolVar(&a.plain, "plain", false, "the relay speaks HTTP, not HTTPS")
	flags.StringVar(&a.stun, "stun", "", "ip:port of its STUN responder")
	flags.IntVar(&a.count, "count", 1, "connections at once, or what the attack counts")
	flags.BoolVar(&a.spread, "spread", false, "come from thousands of networks, not from one")
	flags.BoolVar(&a.proxied, "proxied", false, "come from a proxy's network; only its clients are spread")
	rate := flags.Float64("rate", 0, "bits a second at most, headers included; 0 for no limit")
	seconds := flags.Duration("seconds", time.Second, "how long")
	_ = flags.Parse(arguments)
	prepare, ok := attacks[*name]
	if !ok {
		return fmt.Errorf("there is no attack %q", *name)
	}
	useAllDescriptors()
	runtime.GOMAXPROCS(sleepers)
	do, err := prepare(a)
	if err != nil {
		return err
	}
	orders := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	orders.Scan()
	begin := nanotime()
	a.at.begin(*rate/8, begin+int64(*seconds))
	a.end.Store(begin + int64(*seconds))
	do()
	lasted := nanotime() - begin
	time.Sleep(a.left())
	fmt.Println("done")
	orders.Scan()
	return json.NewEncoder(os.Stdout).Encode(outcome{
		a.at.sent.Load(), float64(lasted) / 1e9, a.opened.Load(), a.ended.Load(),
		a.admitted.Load(), a.refused.Load(), a.notes,
	})
}

func (a *attacker) over() bool {
	end := a.end.Load()
	return end != 0 && nanotime() >= end
}

// left is how long the attack still lasts.
func (a *attacker) left() time.Duration { return time.Duration(a.end.Load() - nanotime()) }

// note counts why something could not be done.
func (a *attacker) note(err error) {
	if errors.Is(err, errOver) || a.over() {
		return
	}
	what := err.Error()
	var deeper *net.OpError
	if errors.As(err, &deeper) {
		what = deeper.Op + ": " + deeper.Err.Error()
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if len(a.notes) < maxErrors || a.notes[what] > 0 {
		a.notes[what]++
	}
}

// bare opens a TCP connection whose writes are counted and paced.
func bare(a *attacker) (*client, error) {
	if !a.at.spend(opening) {
		return nil, errOver
	}
	to := a.target
	to.source = a.address4()
	conn, err := to.connect()
	if err != nil {
		return nil, err
	}
	a.opened.Add(1)
	return &client{conn: metered{conn, a}, fd: -1}, nil
}

// address4 is one of 127/8: all of them are this machine's.
func (a *attacker) address4() net.IP {
	last := byte(1 + rand.IntN(254))
	if a.spread && !a.proxied {
		return net.IPv4(127, byte(64+rand.IntN(64)), byte(rand.IntN(256)), last)
	}
	return net.IPv4(127, 66, 6, last)
}

// keep leaves a connection open until the end.
func (a *attacker) keep(conn net.Conn) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.kept = append(a.kept, conn)
}

// pacer lets no more pass than a link would.
type pacer struct {
	sent  atomic.Int64
	mutex sync.Mutex
	rate  float64 // bytes a second; 0 for no limit
	due   float64
	end   int64
}

func (p *pacer) begin(rate float64, end int64) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.rate, p.due, p.end = rate, float64(nanotime()), end
	p.sent.Store(0)
}

// spend waits until so many bytes may be sent; false if that would be after the end.
func (p *pacer) spend(bytes int) bool {
	p.mutex.Lock()
	now := float64(nanotime())
	if p.end != 0 && now >= float64(p.end) {
		p.mutex.Unlock()
		return false
	}
	wait := 0.0
	if p.rate > 0 {
		p.due = max(p.due, now-1e6) + float64(bytes)/p.rate*1e9
		wait = p.due - now
		if p.due > float64(p.end) {
			p.due = float64(p.end)
			p.mutex.Unlock()
			time.Sleep(time.Duration(wait))
			return false
		}
	}
	p.mutex.Unlock()
	p.sent.Add(int64(bytes))
	if wait > 1e6 {
		time.Sleep(time.Duration(wait))
	} else if wait > least && bytes < headers+piece {
		spec := syscall.NsecToTimespec(int64(wait))
		_ = syscall.Nanosleep(&spec, nil)
	}
	return true
}

// metered is a connection of an attacker.
type metered struct {
	net.Conn
	a *attacker
}

func (m metered) Write(data []byte) (int, error) {
	if !m.a.at.spend(len(data) + (len(data)+segment-1)/segment*headers) {
		return 0, errOver
	}
	return m.Conn.Write(data)
}

// opener opens one connection, as far as the attack wants it to be.
type opener func(a *attacker) (*client, error)

// maker returns what appends the next write; that returns nothing when all has been sent.
type maker func(c *client) func(buf []byte) []byte

// flood keeps `count` connections busy: each is opened, sends what `more` makes of it, one write at
// a time, and is opened anew when the relay ends it.
type flood struct {
	open opener
	more maker
	// then is what becomes of a connection that has sent all.
	then ending
	// early opens the connections before the attack.
	early bool
	// unread leaves what the relay sends in the socket.
	unread bool
}

type ending int

const (
	hold          ending = iota
	again                // close it, open another
	againOnAnswer        // the same, when the relay has said something
	againOnEnd           // the same, when the relay has ended it
)

func nothing(*client) func([]byte) []byte { return func([]byte) []byte { return nil } }

// once sends one thing; as it is, not within TLS, on a bare connection.
func once(what []byte) maker {
	return func(c *client) func([]byte) []byte {
		left := what
		return func(buf []byte) []byte {
			if len(left) == 0 {
				return nil
			}
			part := left[:min(len(left), maxPlaintext)]
			left = left[len(part):]
			return c.wrap(buf, part)
		}
	}
}

func (f flood) attack(a *attacker) (func(), error) {
	early := make([]*client, a.count)
	if f.early {
		early = a.openAll(f.open)
	}
	return func() {
		var done sync.WaitGroup
		for _, c := range early {
			done.Go(func() {
				for !a.over() {
					f.one(a, c)
					c = nil
				}
			})
		}
		done.Wait()
	}, nil
}

// openAll opens `count` connections; nil stands for one that failed.
func (a *attacker) openAll(open opener) []*client {
	opened := make([]*client, a.count)
	tickets := make(chan struct{}, openAtOnce)
	var done sync.WaitGroup
	for i := range opened {
		done.Go(func() {
			tickets <- struct{}{}
			defer func() { <-tickets }()
			c, err := open(a)
			if err != nil {
				a.note(err)
				return
			}
			opened[i] = c
		})
	}
	done.Wait()
	return opened
}

// one leads one connection's life.
func (f flood) one(a *attacker, c *client) {
	if c == nil {
		var err error
		if c, err = f.open(a); err != nil {
			a.note(err)
			if !errors.Is(err, errOver) {
				time.Sleep(impatience)
			}
			return
		}
	}
	heard := newListener(c.conn, f.unread)
	_ = c.conn.SetWriteDeadline(time.Now().Add(a.left()))
	next := f.more(c)
	for buf := make([]byte, 0, 4096); !a.over(); {
		data := next(buf[:0])
		if len(data) == 0 {
			break
		}
		if _, err := c.conn.Write(data); err != nil {
			break
		}
	}
	timer := time.After(a.left())
	switch f.then {
	case hold:
		select {
		case <-heard.end:
			a.ended.Add(1)
		case <-timer:
			a.keep(c.conn)
			return
		}
	case againOnAnswer, againOnEnd:
		waited := heard.end
		if f.then == againOnAnswer {
			waited = heard.something
		}
		select {
		case <-waited:
		case <-time.After(patience):
		case <-timer:
		}
	}
	c.conn.Close()
}

// listener reads what the relay sends, and forgets it.
type listener struct {
	something, end chan struct{}
}

func newListener(conn net.Conn, deaf bool) *listener {
	l := &listener{something: make(chan struct{}), end: make(chan struct{})}
	if deaf {
		return l
	}
	go func() {
		buffer := make([]byte, 4096)
		defer close(l.end)
		for first := true; ; first = false {
			n, err := conn.Read(buffer)
			if first {
				close(l.something)
			}
			if n == 0 && err != nil {
				return
			}
		}
	}()
	return l
}

// wrap appends data as the connection has it on the wire: as a TLS record, where there is TLS.
func (c *client) wrap(buf, data []byte) []byte {
	if c.out == nil {
		return append(buf, data...)
	}
	return c.out.appendRecord(buf, typeApplication, data)
}
