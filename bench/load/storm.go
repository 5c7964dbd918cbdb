// `load storm`: clients that all come back at once, as after a relay's restart, and try again as
// tailscaled does until they are in. tests/storms says who they are and what is looked at meanwhile.
//
// It reads them from standard input, one a line: the private key in hex, whether it belongs ("in")
// or is a stranger ("out"), the address that it comes from. A line "begin" starts all of them. It
// says "done" when those that belong have been in together for a while, or when it has no more
// time; the next line ends it, and it prints what has become of them.

package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/curve25519"
)

const (
	// What tailscaled gives a connection and a login (derphttp: dialNodeTimeout, connect), and how
	// it waits after a failure (magicsock: NewBackoff, 5 s at most).
	stormDial    = 1500 * time.Millisecond
	stormLogin   = 10 * time.Second
	stormStep    = 10 * time.Millisecond
	stormLongest = 5 * time.Second

	// stormGarbage keeps the collector from taking the victims' core: a login leaves little behind.
	stormGarbage = 400
)

// kind is those that belong, or the strangers.
type kind struct {
	Count int `json:"count"`
	// In is how many are in at the end, Ever how many have been, Most how many at once.
	In   int `json:"in"`
	Ever int `json:"ever"`
	Most int `json:"most"`
	// Lost counts connections that the relay ended after the login.
	Lost int `json:"lost"`
	// Refused says how the tries ended that came to nothing, and how often.
	Refused map[string]int `json:"refused"`
	// Tries is how many it took the one that took most.
	Tries int `json:"tries"`
	// Seconds are those until half, 99 of 100 and all of them had been in.
	Half   float64 `json:"half"`
	Most99 float64 `json:"p99"`
	All    float64 `json:"all"`

	first []float64
}

type storm struct {
	target
	begin   time.Time
	context context.Context

	mutex   sync.Mutex
	kinds   map[string]*kind
	changed chan struct{}
}

// comer is one of the clients.
type comer struct {
	*identity
	kind *kind
	from net.IP
	// next is when it may try again; tries counts failures since it was in, as does tailscaled.
	failures int
	tries    int
	been     bool
}

func runStorm(arguments []string) error {
	s := &storm{kinds: map[string]*kind{}, changed: make(chan struct{}, 1)}
	for _, name := range []string{"in", "out"} {
		s.kinds[name] = &kind{Refused: map[string]int{}}
	}
	flags := flag.NewFlagSet("storm", flag.ExitOnError)
	flags.StringVar(&s.address, "address", "", "ip:port of the relay")
	limit := flags.Duration("limit", time.Minute, "give up after this time")
	settle := flags.Duration("settle", time.Second, "for how long all that belong have to be in")
	_ = flags.Parse(arguments)
	useAllDescriptors()
	debug.SetGCPercent(stormGarbage)
	runtime.GOMAXPROCS(sleepers)

	orders := bufio.NewScanner(os.Stdin)
	comers, err := s.read(orders)
	if err != nil {
		return err
	}
	var end context.CancelFunc
	s.context, end = context.WithTimeout(context.Background(), *limit)
	defer end()
	s.begin = time.Now()
	for _, c := range comers {
		go s.live(c)
	}
	s.wait(*settle)
	fmt.Println("done")
	orders.Scan()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, k := range s.kinds {
		k.finish()
	}
	return json.NewEncoder(os.Stdout).Encode(s.kinds)
}

// read returns those who are to come, when the order to begin has come.
func (s *storm) read(orders *bufio.Scanner) ([]*comer, error) {
	var comers []*comer
	for orders.Scan() {
		fields := strings.Fields(orders.Text())
		if len(fields) == 1 && fields[0] == "ready?" {
			fmt.Println("ready")
			continue
		}
		if len(fields) == 1 && fields[0] == "begin" {
			return comers, nil
		}
		if len(fields) != 3 || s.kinds[fields[1]] == nil {
			return nil, fmt.Errorf("%q is no client", orders.Text())
		}
		who, err := identityOf(fields[0])
		if err != nil {
			return nil, err
		}
		c := &comer{identity: who, kind: s.kinds[fields[1]], from: net.ParseIP(fields[2])}
		c.kind.Count++
		comers = append(comers, c)
	}
	return nil, errors.New("nobody has said when to begin")
}

// identityOf makes a client's key pair of its private key.
func identityOf(text string) (*identity, error) {
	private, err := hex.DecodeString(text)
	if err != nil || len(private) != keyLength {
		return nil, fmt.Errorf("%q is no key", text)
	}
	public, err := curve25519.X25519(private, curve25519.Basepoint)
	if err != nil {
		return nil, err
	}
	return &identity{public: key(public), private: key(private)}, nil
}

// wait returns when all that belong have been in together for a while, or when time is up.
func (s *storm) wait(settle time.Duration) {
	var since time.Time
	for {
		s.mutex.Lock()
		all := s.kinds["in"].In == s.kinds["in"].Count
		s.mutex.Unlock()
		left := settle
		switch {
		case !all:
			since, left = time.Time{}, time.Hour
		case since.IsZero():
			since = time.Now()
		default:
			left -= time.Since(since)
		}
		if left <= 0 {
			return
		}
		select {
		case <-s.context.Done():
			return
		case <-s.changed:
		case <-time.After(left):
		}
	}
}

// live has one come, stay for as long as the relay lets it, and come back.
func (s *storm) live(c *comer) {
	for s.context.Err() == nil {
		if err := s.visit(c); err != nil && s.context.Err() == nil {
			s.note(c, err)
		}
		c.failures++
		wait := min(time.Duration(c.failures*c.failures)*stormStep, stormLongest)
		wait = time.Duration(float64(wait) * (0.5 + rand.Float64()))
		select {
		case <-s.context.Done():
		case <-time.After(wait):
		}
	}
}

// visit returns how it came to nothing, or nil at the end of a connection that had logged in.
func (s *storm) visit(c *comer) error {
	c.tries++
	dialer := net.Dialer{Timeout: stormDial, LocalAddr: &net.TCPAddr{IP: c.from}}
	tcp, err := dialer.DialContext(s.context, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("connecting: %w", plainly(err))
	}
	client := &client{identity: c.identity, conn: tcp, fd: -1}
	_ = tcp.SetDeadline(time.Now().Add(stormLogin))
	if err := client.login(&s.target); err != nil {
		tcp.Close()
		return fmt.Errorf("%s: %w", stage(client, err), plainly(err))
	}
	defer client.close()
	_ = tcp.SetDeadline(time.Time{})
	c.failures = 0
	s.entered(c)
	stay(client)
	s.left(c)
	return nil
}

// stage says how far a login had come.
func stage(c *client, err error) string {
	if strings.HasPrefix(err.Error(), "TLS: ") || c.out == nil {
		return "TLS"
	}
	return "login"
}

// stay answers pings until the connection ends.
func stay(c *client) {
	// A buffer for each of thousands would be most of this program's memory.
	_ = c.readFrames(func(kind byte, body []byte) error {
		if kind == framePing {
			return c.write(append([]byte{framePong, 0, 0, 0, byte(len(body))}, body...))
		}
		return nil
	})
}

func (s *storm) entered(c *comer) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	c.kind.In++
	c.kind.Most = max(c.kind.Most, c.kind.In)
	if !c.been {
		c.been = true
		c.kind.Ever++
		c.kind.first = append(c.kind.first, time.Since(s.begin).Seconds())
		c.kind.Tries = max(c.kind.Tries, c.tries)
	}
	s.tell()
}

func (s *storm) left(c *comer) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.context.Err() != nil {
		return
	}
	c.kind.In--
	c.kind.Lost++
	s.tell()
}

func (s *storm) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *storm) note(c *comer, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	c.kind.Refused[err.Error()]++
}

// plainly leaves addresses and ports out of an error.
func plainly(err error) error {
	var code syscall.Errno
	var late net.Error
	switch {
	case errors.As(err, &code):
		return code
	case errors.Is(err, io.EOF):
		return errors.New("closed")
	case errors.As(err, &late) && late.Timeout():
		return errors.New("no answer in time")
	}
	return err
}

func (k *kind) finish() {
	slices.Sort(k.first)
	at := func(share float64) float64 {
		if place := int(share*float64(k.Count)+0.999999) - 1; place >= 0 && place < len(k.first) {
			return k.first[place]
		}
		return 0
	}
	k.Half, k.Most99, k.All = at(0.5), at(0.99), at(1)
}
