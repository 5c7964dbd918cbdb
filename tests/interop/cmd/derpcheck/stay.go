package main

import (
	"flag"
	"io"
	"log"
	"os"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// sighting is what one of two clients that stay saw.
type sighting struct {
	Client     string `json:"client"`
	Connection int    `json:"connection"` // the first is 1
	Saw        string `json:"saw"`        // login, packet, restarting, lost
	Server     string `json:"server"`     // at a login: the relay's key
	Detail     string `json:"detail"`
}

// runStay has two clients, made from a DERP map as tailscaled makes them,
// stay at one node: they send each other packets, and when their connection is
// gone, come back by themselves, as tailscaled does. It prints what they see,
// of the packets only the first of each connection, until it is killed or its
// standard input ends.
func runStay(args []string) {
	fs := flag.NewFlagSet("stay", flag.ExitOnError)
	var relay relayAddrs
	fs.Func("node", "the DERP node, as JSON", func(s string) error {
		return jsonUnmarshal(s, &relay.pinned)
	})
	verbose := fs.Bool("v", false, "log what the clients say")
	fs.Parse(args)
	if !*verbose {
		log.SetOutput(io.Discard)
	}
	seen := make(chan sighting)
	alice, bob := key.NewNode(), key.NewNode()
	go stay(relay, "alice", alice, bob.Public(), seen)
	go stay(relay, "bob", bob, alice.Public(), seen)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for s := range seen {
		printJSON(s)
	}
}

// stay is one of the two clients. A packet that is lost is made up for by the
// next.
func stay(relay relayAddrs, name string, priv key.NodePrivate, peer key.NodePublic, seen chan<- sighting) {
	t := &T{relay: relay}
	c := t.newRegionClient(priv, relay.pinned)
	go func() {
		for {
			c.Send(peer, []byte("still there?"))
			time.Sleep(50 * time.Millisecond)
		}
	}()
	got := 0 // the connection by which the last packet came
	for {
		m, connection, err := c.RecvDetail()
		if err != nil {
			seen <- sighting{name, connection, "lost", "", err.Error()}
			time.Sleep(100 * time.Millisecond)
			continue
		}
		switch m := m.(type) {
		case derp.ServerInfoMessage:
			seen <- sighting{name, connection, "login", c.ServerPublicKey().String(), ""}
		case derp.ServerRestartingMessage:
			seen <- sighting{name, connection, "restarting", "", m.ReconnectIn.String()}
		case derp.ReceivedPacket:
			if connection != got && m.Source == peer {
				got = connection
				seen <- sighting{name, connection, "packet", "", ""}
			}
		}
	}
}
