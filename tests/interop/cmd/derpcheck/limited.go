package main

import (
	"bufio"
	"context"
	"flag"
	"io"
	"log"
	"os"
	"sync/atomic"
	"time"

	"tailscale.com/derp"
)

// limitedReport is what has happened since the line on standard input before.
type limitedReport struct {
	Told    int     `json:"told"` // bytes a second, 0 for no limit
	Burst   int     `json:"burst"`
	Bytes   int64   `json:"bytes"`   // of packets that arrived
	Seconds float64 `json:"seconds"` // since the report before
	Health  string  `json:"health"`  // the last problem that was declared
}

// runLimited has one client send to another all the time, as fast as one that
// offers 16 MB a second. It reports what arrived once both are logged in, and
// for each line on standard input, until that ends.
func runLimited(args []string) {
	fs := flag.NewFlagSet("limited", flag.ExitOnError)
	var relay relayAddrs
	fs.StringVar(&relay.tls, "tls", "", "URL of the relay")
	fs.Parse(args)
	log.SetOutput(io.Discard)

	const size, pause = 4096, 250 * time.Microsecond
	t := &T{relay: relay, ctx: context.Background()}
	alice, bob := t.login(tls13), t.login(tls13)
	var told, burst, arrived atomic.Int64
	var health atomic.Value
	health.Store("")
	go func() {
		for m := range alice.msgs {
			switch m := m.(type) {
			case derp.ServerInfoMessage:
				told.Store(int64(m.TokenBucketBytesPerSecond))
				burst.Store(int64(m.TokenBucketBytesBurst))
				health.Store("") // as magicsock takes it
			case derp.HealthMessage:
				health.Store(m.Problem)
			}
		}
	}()
	go func() {
		for m := range bob.msgs {
			if packet, ok := m.(derp.ReceivedPacket); ok {
				arrived.Add(int64(len(packet.Data)))
			}
		}
	}()
	go func() {
		payload := randomBytes(size)
		for alice.Send(bob.key, payload) == nil {
			time.Sleep(pause)
		}
	}()
	last := time.Now()
	report := func() {
		now := time.Now()
		printJSON(limitedReport{
			int(told.Load()), int(burst.Load()), arrived.Swap(0), now.Sub(last).Seconds(),
			health.Load().(string),
		})
		last = now
	}
	report()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		report()
	}
}
