package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// probe begins a packet that is sent until it arrives, and may arrive again.
var probe = []byte("are you there yet? ")

// runAcross has a client log in at each of some relays that are meshed. Every
// one sends packets to every other; then they leave one by one, and those who
// stay must be told.
func runAcross(args []string) {
	fs := flag.NewFlagSet("across", flag.ExitOnError)
	verbose := fs.Bool("v", false, "log what the clients say")
	fs.Parse(args)
	if !*verbose {
		log.SetOutput(io.Discard)
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	t := &T{ctx: ctx}
	err := t.attempt(func(t *T) {
		var peers []*peer
		for _, url := range fs.Args() {
			t.relay.tls = url
			peers = append(peers, t.login(tls13))
		}
		t.allPairs(peers, (*T).reach)
		for _, size := range []int{1, 0, 100, 1400, derp.MaxPacketSize} {
			t.allPairs(peers, func(t *T, from, to *peer) {
				payload := randomBytes(size)
				t.must("send", from.Send(to.key, payload))
				to.checkPacket(to.afterProbes(), from.key, payload)
			})
		}
		for i, leaver := range peers[:len(peers)-1] {
			leaver.close()
			for _, p := range peers[i+1:] {
				p.checkGone(p.afterProbes(), leaver.key, derp.PeerGoneReasonDisconnected)
			}
		}
		peers[len(peers)-1].roundTrip()
		t.notef("%d relays", len(peers))
	})
	if err != nil {
		printJSON(result{"across", false, err.Error()})
		os.Exit(1)
	}
	printJSON(result{"across", true, t.detail})
}

func (t *T) allPairs(peers []*peer, f func(t *T, from, to *peer)) {
	for _, from := range peers {
		for _, to := range peers {
			if from != to {
				f(t, from, to)
			}
		}
	}
}

// reach sends a packet until it arrives: the relays need a moment to tell each
// other of a new client.
func (t *T) reach(from, to *peer) {
	payload := fmt.Appendf(nil, "%sI am %s", probe, from.key)
	t.eventually(fmt.Sprintf("%s reaches %s", from.name, to.name), func() error {
		t.must("send", from.Send(to.key, payload))
		timeout := time.After(100 * time.Millisecond)
		for {
			select {
			case m := <-to.msgs:
				packet, ok := m.(derp.ReceivedPacket)
				if ok && packet.Source == from.key && bytes.Equal(packet.Data, payload) {
					return nil
				}
				if !isProbe(m) {
					t.fatalf("%s: got %T %v, want a probe", to.name, m, m)
				}
			case <-timeout:
				return fmt.Errorf("no packet came")
			}
		}
	})
}

func isProbe(m derp.ReceivedMessage) bool {
	packet, ok := m.(derp.ReceivedPacket)
	return ok && bytes.HasPrefix(packet.Data, probe)
}

// afterProbes is next, and it must come; probes don't count.
func (p *peer) afterProbes() derp.ReceivedMessage {
	m := p.mustNext()
	for isProbe(m) {
		m = p.mustNext()
	}
	return m
}

func randomBytes(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// runStorm has clients come and go at one relay, and in the end as many stay
// as it is told. It prints their keys, then sends every packet that they get
// back to where it came from, until its standard input ends.
func runStorm(args []string) {
	fs := flag.NewFlagSet("storm", flag.ExitOnError)
	url := fs.String("tls", "", "URL of the relay")
	connections := fs.Int("n", 1000, "how many connections to make")
	stay := fs.Int("stay", 40, "how many clients stay; at most one of five comes to stay")
	fs.Parse(args)
	log.SetOutput(io.Discard)
	time.AfterFunc(2*checkTimeout, func() {
		fmt.Fprintln(os.Stderr, "derpcheck: storm: it takes too long")
		os.Exit(1)
	})

	const workers = 20
	staying := make(chan *derphttp.Client, *stay)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			mine := *stay / workers
			if w < *stay%workers {
				mine++
			}
			storm(*url, *connections/workers, mine, staying)
		})
	}
	all.Wait()
	close(staying)
	var keys []string
	for c := range staying {
		public := c.SelfPublicKey().Raw32()
		keys = append(keys, hex.EncodeToString(public[:]))
		go echo(c)
	}
	printJSON(keys)
	io.Copy(io.Discard, os.Stdin)
}

// storm makes connections one after the other, of a few keys, so that these
// come back, and are connected twice now and then; in the end `stay` of them
// are connected.
func storm(url string, connections, stay int, staying chan<- *derphttp.Client) {
	keys := make([]key.NodePrivate, max(stay, 1)+connections/5)
	for i := range keys {
		keys[i] = key.NewNode()
	}
	up := map[int]*derphttp.Client{}
	leave := func(i int) {
		if c := up[i]; c != nil {
			c.Close()
			delete(up, i)
		}
	}
	for n := range connections {
		// The last of them come to stay.
		i := rand.IntN(len(keys))
		if last := n - (connections - stay); last >= 0 {
			i = last
		}
		c, err := derphttp.NewClient(keys[i], url, log.Printf, netmon.NewStatic())
		if err != nil {
			panic(err)
		}
		if err := c.Connect(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "derpcheck: storm:", err)
			os.Exit(1)
		}
		if rand.IntN(2) == 0 || connections-n <= stay {
			c.Recv() // the login is over
		}
		if connections-n > stay && rand.IntN(3) == 0 {
			c.Close()
			continue
		}
		// The old connection of this key, if there is one, leaves after the
		// new one has come.
		leave(i)
		up[i] = c
	}
	for i := range up {
		if i >= stay {
			leave(i)
		}
	}
	for _, c := range up {
		staying <- c
	}
}

func echo(c *derphttp.Client) {
	for {
		m, err := c.Recv()
		if err != nil {
			return
		}
		if packet, ok := m.(derp.ReceivedPacket); ok {
			c.Send(packet.Source, bytes.Clone(packet.Data))
		}
	}
}
