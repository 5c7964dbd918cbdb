package main

import (
	"context"
	"flag"
	"io"
	"log"
	"os"
)

// runTalk has two clients, made from a DERP map as tailscaled makes them, log
// in at one node and send each other a packet.
func runTalk(args []string) {
	fs := flag.NewFlagSet("talk", flag.ExitOnError)
	var relay relayAddrs
	fs.Func("node", "the DERP node, as JSON", func(s string) error {
		return jsonUnmarshal(s, &relay.pinned)
	})
	verbose := fs.Bool("v", false, "log what the client says")
	fs.Parse(args)
	if !*verbose {
		log.SetOutput(io.Discard)
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	t := &T{ctx: ctx, relay: relay}
	err := t.attempt(func(t *T) {
		a, b := t.login(pinned), t.login(pinned)
		t.passPacket(a, b, []byte("hello"))
		t.passPacket(b, a, []byte("hello to you"))
		state, ok := a.TLSConnectionState()
		if !ok {
			t.fatalf("no TLS")
		}
		t.notef("%d certificates", len(state.PeerCertificates))
	})
	if err != nil {
		printJSON(result{"talk", false, err.Error()})
		os.Exit(1)
	}
	printJSON(result{"talk", true, t.detail})
}
