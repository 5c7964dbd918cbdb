package main

import (
	"tailscale.com/derp/derphttp"
	"tailscale.com/types/key"
)

// Without the mesh key, every mesh frame ends the connection, and only the
// connection that sent it.
var meshChecks = []check{
	{"mesh-refused/watch", checkWatchRefused},
	{"mesh-refused/forward", checkForwardRefused},
	{"mesh-refused/close-peer", checkClosePeerRefused},
	{"mesh-refused/wrong-key", checkWrongMeshKey},
}

func checkWatchRefused(t *T) {
	p := t.newClient(newKey(), tls13)
	defer p.Close()
	p.WatchConnectionChanges = true
	t.must("connect", p.Connect(t.ctx))
	for {
		// The greeting may be here before the relay has read the request.
		m, err := p.Recv()
		if err != nil {
			return
		}
		if !isInfo(m) {
			t.fatalf("got %T %v, want the connection closed", m, m)
		}
	}
}

func checkForwardRefused(t *T) {
	p, victim := t.login(tls13), t.login(tls13)
	t.must("send", p.ForwardPacket(someKey(), victim.key, []byte("forged")))
	p.wantClosed()
	victim.wantNothing()
}

func checkClosePeerRefused(t *T) {
	p, victim := t.login(tls13), t.login(tls13)
	t.must("send", p.ClosePeer(victim.key))
	p.wantClosed()
	victim.wantNothing()
}

func checkWrongMeshKey(t *T) {
	wrong, err := key.ParseDERPMesh("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	t.must("parse", err)
	withKey := func(c *derphttp.Client) { c.MeshKey = wrong }
	p, other := t.login(tls13, withKey), t.login(tls13)
	t.passPacket(p, other, []byte("as anybody may"))
	t.must("send", p.ForwardPacket(someKey(), other.key, []byte("forged")))
	p.wantClosed()
	other.wantGone(p.key, 0)
	other.wantNothing()
}
