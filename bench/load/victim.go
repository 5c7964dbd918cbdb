// `load victim`: two who have been there before the attack, and those who come meanwhile, all from
// another network than the attackers.
//
// It says "ready" when both have logged in and packets pass; the next line on standard input begins
// the attack, and another ends it. Then it waits for what is still on its way, and prints how late
// the packets were.

package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// Phases are told apart by the packets' flow.
	quiet = iota
	attacked
	after // one of these that has arrived has overtaken nothing: what is missing then is lost
	phases

	victimPacket = 200 // bytes
	// victimSkip is how late the victim itself may be; what is later is not sent, and not counted.
	victimSkip   = int64(20 * time.Millisecond)
	victimDrain  = 10 * time.Second
	betweenCalls = 50 * time.Millisecond
)

// heard is what became of one kind of request, during one phase.
type heard struct {
	times      histogram
	sent       uint64
	unanswered map[uint64]bool
}

// seen is what the victim prints, in milliseconds.
type seen struct {
	Sent uint64 `json:"sent"`
	// Lost counts as 10 s late.
	Lost uint64  `json:"lost"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

type victim struct {
	target
	stun   string
	period time.Duration

	mutex  sync.Mutex
	phase  uint32
	pairs  [phases]heard
	asked  heard // STUN, during the attack
	late   int64 // by which the victim's own clock was off at most, during the attack
	logins heard
	// Why newcomers were kept out, and what became of the two.
	keptOut, broken map[string]int
}

func runVictim(arguments []string) error {
	v := &victim{keptOut: map[string]int{}, broken: map[string]int{}}
	flags := flag.NewFlagSet("victim", flag.ExitOnError)
	flags.StringVar(&v.address, "address", "", "ip:port of the relay")
	flags.BoolVar(&v.plain, "plain", false, "the relay speaks HTTP, not HTTPS")
	flags.StringVar(&v.stun, "stun", "", "ip:port of its STUN responder, to ask it too")
	v.source = net.IPv4(127, 77, 7, 7)
	flags.DurationVar(&v.period, "period", 2*time.Millisecond, "between two packets")
	from, to := newIdentity(), newIdentity()
	given := func(who *identity) func(string) error {
		return func(text string) (err error) {
			made, err := identityOf(text)
			if err == nil {
				*who = *made
			}
			return err
		}
	}
	flags.Func("from", "private key of the one who sends, in hex", given(from))
	flags.Func("to", "and of the one who receives", given(to))
	alone := flags.Bool("alone", false, "have no others come meanwhile")
	_ = flags.Parse(arguments)
	sender, err := dial(&v.target, from)
	if err != nil {
		return err
	}
	receiver, err := dial(&v.target, to)
	if err != nil {
		return err
	}
	arrived := make(chan error, 1)
	go func() { arrived <- receiver.readFrames(v.frame) }()
	var over, sending sync.WaitGroup
	end, drained := make(chan struct{}), make(chan struct{})
	sending.Go(func() { v.send(sender, receiver.public, drained) })
	go func() { _ = sender.readFrames(func(byte, []byte) error { return nil }) }()
	orders := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	orders.Scan()
	v.enter(attacked)
	if !*alone {
		over.Go(func() { v.come(end) })
	}
	if v.stun != "" {
		if err := v.ask(end, &over); err != nil {
			return err
		}
	}
	orders.Scan()
	v.enter(after)
	close(end)
	v.drain(arrived)
	close(drained)
	sending.Wait()
	over.Wait()
	return v.tell(arrived)
}

func (v *victim) enter(phase uint32) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.phase = phase
}

// send keeps to its schedule whatever the relay does.
func (v *victim) send(sender *client, to key, end <-chan struct{}) {
	packet := make([]byte, 0, overhead+victimPacket)
	for due := nanotime(); ; due += int64(v.period) {
		time.Sleep(time.Duration(due - nanotime()))
		select {
		case <-end:
			return
		default:
		}
		now := nanotime()
		v.mutex.Lock()
		if v.phase == attacked {
			v.late = max(v.late, now-due)
		}
		if now-due > victimSkip {
			due = now
		}
		pair := &v.pairs[v.phase]
		packet = binary.BigEndian.AppendUint32(append(packet[:0], frameSendPacket), keyLength+victimPacket)
		packet = append(packet, to[:]...)
		packet = appendPacket(packet, v.phase, pair.sent, now, victimPacket)
		pair.asked(pair.sent)
		v.mutex.Unlock()
		if err := sender.write(packet); err != nil {
			v.note(v.broken, "the sender", err)
			return
		}
	}
}

func (v *victim) frame(kind byte, body []byte) error {
	if kind != frameRecvPacket {
		return nil
	}
	phase, number, made, err := parsePacket(body[keyLength:])
	if err != nil {
		return err
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.pairs[phase].answered(number, nanotime()-made)
	return nil
}

// come logs in one newcomer after the other.
func (v *victim) come(end <-chan struct{}) {
	for number := uint64(0); ; number++ {
		who := newIdentity()
		begin := nanotime()
		v.mutex.Lock()
		v.logins.asked(number)
		v.mutex.Unlock()
		c, err := dial(&v.target, who)
		if err != nil {
			v.note(v.keptOut, "a login", err)
		} else {
			v.mutex.Lock()
			v.logins.answered(number, nanotime()-begin)
			v.mutex.Unlock()
			c.goodbye()
		}
		select {
		case <-end:
			return
		case <-time.After(betweenCalls):
		}
	}
}

// ask sends a STUN request each period, and reads the answers.
func (v *victim) ask(end <-chan struct{}, over *sync.WaitGroup) error {
	s, err := newStunSocket(v.stun)
	if err != nil {
		return err
	}
	if err := syscall.SetNonblock(s.fd, true); err != nil {
		return err
	}
	file := os.NewFile(uintptr(s.fd), "stun")
	made := map[uint64]int64{}
	over.Go(func() {
		var out [stunSize]byte
		for number := uint64(0); ; number++ {
			request(out[:], s.port, 0, uint32(number))
			v.mutex.Lock()
			made[number] = nanotime()
			v.asked.asked(number)
			v.mutex.Unlock()
			_, _ = file.Write(out[:])
			select {
			case <-end:
				return
			case <-time.After(v.period):
			}
		}
	})
	go func() {
		var in [128]byte
		for {
			n, err := file.Read(in[:])
			if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
			if n >= 20 && binary.BigEndian.Uint16(in[:]) == 0x0101 {
				number := uint64(binary.BigEndian.Uint32(in[16:]))
				v.mutex.Lock()
				v.asked.answered(number, nanotime()-made[number])
				v.mutex.Unlock()
			}
		}
	}()
	return nil
}

// drain waits until all has arrived that will.
func (v *victim) drain(arrived chan error) {
	for end := time.Now().Add(victimDrain); time.Now().Before(end); time.Sleep(v.period) {
		v.mutex.Lock()
		overtaken := v.pairs[after].times.total > 0
		v.mutex.Unlock()
		if overtaken || len(arrived) > 0 {
			return
		}
	}
}

func (v *victim) note(where map[string]int, who string, err error) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	where[fmt.Sprintf("%s: %v", who, err)]++
}

func (v *victim) tell(arrived chan error) error {
	if len(arrived) > 0 {
		v.note(v.broken, "the receiver", <-arrived)
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"quiet":    v.pairs[quiet].seen(),
		"pair":     v.pairs[attacked].seen(),
		"stun":     v.asked.seen(),
		"logins":   v.logins.seen(),
		"late":     float64(v.late) / 1e6,
		"kept_out": v.keptOut,
		"broken":   v.broken,
	})
}

func (h *heard) asked(number uint64) {
	if h.unanswered == nil {
		h.unanswered = map[uint64]bool{}
	}
	h.unanswered[number] = true
	h.sent++
}

func (h *heard) answered(number uint64, after int64) {
	if h.unanswered[number] {
		delete(h.unanswered, number)
		h.times.add(after)
	}
}

func (h *heard) seen() seen {
	lost := uint64(len(h.unanswered))
	for range lost {
		h.times.add(int64(victimDrain))
	}
	q := func(q float64) float64 { return h.times.quantile(q) / 1e6 }
	return seen{h.sent, lost, q(0.5), q(0.99), float64(h.times.max) / 1e6}
}
