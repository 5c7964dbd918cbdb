//go:build js

// Derpwasm is Tailscale's DERP client as browsers have it, which speaks DERP
// through a websocket: two clients of the relay at a URL send each other
// packets, and 20 MB one way. Once for each line of standard input, with
// connections of their own; each time "ok" is printed, or why not.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

const (
	packetSize = 20_000
	packets    = 1_000
	window     = 16 // packets under way, which the relay queues before it drops any
)

type client struct {
	*derphttp.Client
	public key.NodePublic
}

func login(ctx context.Context, url string) (client, error) {
	k := key.NewNode()
	c, err := derphttp.NewClient(k, url, logger.Discard, netmon.NewStatic())
	if err != nil {
		return client{}, err
	}
	return client{c, k.Public()}, c.Connect(ctx)
}

func pass(from, to client, data []byte) error {
	if err := from.Send(to.public, data); err != nil {
		return err
	}
	return to.expect(from, data)
}

func (c client) expect(from client, data []byte) error {
	for {
		m, err := c.Recv()
		if err != nil {
			return err
		}
		p, ok := m.(derp.ReceivedPacket)
		if !ok {
			continue
		}
		if p.Source != from.public || !bytes.Equal(p.Data, data) {
			return fmt.Errorf("%d bytes came as %d from %v", len(data), len(p.Data), p.Source)
		}
		return nil
	}
}

func content(number int) []byte {
	data := make([]byte, packetSize)
	for i := range data {
		data[i] = byte(i*31 + number*17)
	}
	return data
}

func talk(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	a, err := login(ctx, url)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := login(ctx, url)
	if err != nil {
		return err
	}
	defer b.Close()
	for _, size := range []int{0, 1, 1_400, packetSize} {
		data := bytes.Repeat([]byte{7}, size)
		if err := pass(b, a, data); err != nil {
			return err
		}
		if err := pass(a, b, data); err != nil {
			return err
		}
	}
	for first := 0; first < packets; first += window {
		end := min(first+window, packets)
		for number := first; number < end; number++ {
			if err := a.Send(b.public, content(number)); err != nil {
				return err
			}
		}
		for number := first; number < end; number++ {
			if err := b.expect(a, content(number)); err != nil {
				return err
			}
		}
	}
	return nil
}

func main() {
	log.SetOutput(io.Discard)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := talk(os.Args[1]); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
}
