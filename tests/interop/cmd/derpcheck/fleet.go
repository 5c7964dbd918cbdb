package main

import (
	"bufio"
	"context"
	"flag"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/backoff"
)

// maxBackoff is magicsock's, in runDerpReader.
const maxBackoff = 5 * time.Second

// fleetReport is what has happened since the report before. Times are seconds
// since 1970.
type fleetReport struct {
	Connected int       `json:"connected"`
	Lost      []float64 `json:"lost"`   // connections that ended
	Failed    []float64 `json:"failed"` // attempts to come back that failed
	Logins    []float64 `json:"logins"`
}

// fleet is clients that stay in one region, and come back as tailscaled does.
type fleet struct {
	mu  sync.Mutex
	now fleetReport
}

// runFleet has clients log in and stay, prints a report once all of them are
// in, and another one for each line on standard input, until that ends.
func runFleet(args []string) {
	fs := flag.NewFlagSet("fleet", flag.ExitOnError)
	var nodes []tailcfg.DERPNode
	fs.Func("node", "a DERP node of their region, as JSON; the first that answers is taken", func(s string) error {
		var node tailcfg.DERPNode
		err := jsonUnmarshal(s, &node)
		nodes = append(nodes, node)
		return err
	})
	clients := fs.Int("n", 200, "how many clients there are")
	fs.Parse(args)
	log.SetOutput(io.Discard)

	f := new(fleet)
	for range *clients {
		go f.stay(new(T).newRegionClient(key.NewNode(), nodes...))
	}
	for f.connected() < *clients {
		time.Sleep(10 * time.Millisecond)
	}
	f.report()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		f.report()
	}
}

func (f *fleet) connected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now.Connected
}

func (f *fleet) report() {
	f.mu.Lock()
	defer f.mu.Unlock()
	printJSON(f.now)
	f.now = fleetReport{Connected: f.now.Connected}
}

// stay reads for ever; the next read after an error dials anew. It waits
// between two attempts for as long as magicsock does.
func (f *fleet) stay(c *derphttp.Client) {
	bo := backoff.NewBackoff("derp", log.Printf, maxBackoff)
	in := false
	for {
		m, err := c.Recv()
		f.note(m, err, &in)
		bo.BackOff(context.Background(), err)
	}
}

func (f *fleet) note(m derp.ReceivedMessage, err error, in *bool) {
	now := float64(time.Now().UnixNano()) / 1e9
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil && isInfo(m) && !*in:
		*in = true
		f.now.Connected++
		f.now.Logins = append(f.now.Logins, now)
	case err != nil && *in:
		*in = false
		f.now.Connected--
		f.now.Lost = append(f.now.Lost, now)
	case err != nil:
		f.now.Failed = append(f.now.Failed, now)
	}
}
