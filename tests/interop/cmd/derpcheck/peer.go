package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/envknob"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// via is a way to reach the relay.
type via string

const (
	tls13          via = "tls13"           // TLS 1.3: the client finds the metacert and starts fast
	tls12          via = "tls12"           // TLS 1.2: no fast start, the relay answers 101
	plain          via = "plain"           // plain HTTP
	websocket      via = "websocket"       // a websocket over TLS
	websocketPlain via = "websocket-plain" // a websocket over plain HTTP
	pinned         via = "pinned"          // TLS, the certificate pinned by its hash
)

var everyVia = []via{tls13, tls12, plain, websocket, websocketPlain, pinned}

// A peer is one connection of one key, logged in, with a reader of its own.
type peer struct {
	*derphttp.Client
	t    *T
	name string
	key  key.NodePublic
	priv key.NodePrivate
	msgs chan derp.ReceivedMessage // closed once the connection is
	done sync.Once
}

// option changes a client before it connects.
type option func(*derphttp.Client)

// login connects a new key and waits for the server's greeting.
func (t *T) login(v via, opts ...option) *peer { return t.loginAs(key.NewNode(), v, opts...) }

// loginAs is login with a key that may be connected already.
func (t *T) loginAs(priv key.NodePrivate, v via, opts ...option) *peer {
	p, err := t.tryLogin(priv, v, opts...)
	t.must(fmt.Sprintf("login over %s", v), err)
	return p
}

// tryLogin is loginAs where the relay may refuse.
func (t *T) tryLogin(priv key.NodePrivate, v via, opts ...option) (*peer, error) {
	c := t.newClient(priv, v)
	for _, o := range opts {
		o(c)
	}
	knob := ""
	if v == websocket || v == websocketPlain {
		knob = "1"
	}
	envknob.Setenv("TS_DEBUG_DERP_WS_CLIENT", knob)
	if err := c.Connect(t.ctx); err != nil {
		c.Close()
		return nil, err
	}
	p := &peer{
		Client: c,
		t:      t,
		name:   fmt.Sprintf("%s#%d", v, len(t.peers)),
		key:    priv.Public(),
		priv:   priv,
		msgs:   make(chan derp.ReceivedMessage, 10_000),
	}
	t.peers = append(t.peers, p)
	go p.read()
	m, err := p.next()
	if err != nil {
		return nil, err
	}
	if !isInfo(m) {
		return nil, fmt.Errorf("the first message is a %T, not the server's info", m)
	}
	return p, nil
}

// newClient is a derphttp client that has not connected yet.
func (t *T) newClient(priv key.NodePrivate, v via) *derphttp.Client {
	url := t.relay.tls
	switch v {
	case plain, websocketPlain:
		url = t.relay.plain
	case pinned:
		return t.newRegionClient(priv, t.relay.pinned)
	}
	if url == "" {
		t.fatalf("no address given for %s", v)
	}
	c, err := derphttp.NewClient(priv, url, log.Printf, netmon.NewStatic())
	t.must("new client", err)
	if v == tls12 {
		c.TLSConfig = &tls.Config{MaxVersion: tls.VersionTLS12}
	}
	return c
}

// newRegionClient is a client as tailscaled makes it, from a DERP map.
func (t *T) newRegionClient(priv key.NodePrivate, nodes ...tailcfg.DERPNode) *derphttp.Client {
	region := &tailcfg.DERPRegion{RegionID: 900, RegionCode: "test", RegionName: "test"}
	for _, n := range nodes {
		n.RegionID = region.RegionID
		region.Nodes = append(region.Nodes, &n)
	}
	return derphttp.NewRegionClient(priv, log.Printf, netmon.NewStatic(), func() *tailcfg.DERPRegion { return region })
}

// read passes on what arrives until the connection ends; Client would
// reconnect at the next Recv, so it stops there.
func (p *peer) read() {
	defer close(p.msgs)
	for {
		m, err := p.Recv()
		if err != nil {
			return
		}
		if packet, ok := m.(derp.ReceivedPacket); ok {
			packet.Data = bytes.Clone(packet.Data) // it aliases the client's buffer
			m = packet
		}
		p.msgs <- m
	}
}

func (p *peer) close() { p.done.Do(func() { p.Client.Close() }) }

var (
	errClosed  = errors.New("the relay closed the connection")
	errNothing = fmt.Errorf("nothing came within %v", wait)
)

// next is the next message that is not a keepalive.
func (p *peer) next() (derp.ReceivedMessage, error) {
	timeout := time.After(wait)
	for {
		select {
		case m, ok := <-p.msgs:
			if !ok {
				return nil, errClosed
			}
			if _, ok := m.(derp.KeepAliveMessage); ok {
				continue
			}
			return m, nil
		case <-timeout:
			return nil, errNothing
		}
	}
}

// mustNext is next, and it must come.
func (p *peer) mustNext() derp.ReceivedMessage {
	m, err := p.next()
	p.t.must(p.name+": receive", err)
	return m
}

// wantPacket waits for one packet, which must be this one.
func (p *peer) wantPacket(from key.NodePublic, payload []byte) {
	p.checkPacket(p.mustNext(), from, payload)
}

// checkPacket makes sure that m is this packet.
func (p *peer) checkPacket(m derp.ReceivedMessage, from key.NodePublic, payload []byte) {
	packet, ok := m.(derp.ReceivedPacket)
	if !ok {
		p.t.fatalf("%s: got %T %v, want a packet", p.name, m, m)
	}
	want(p.t, p.name+": source of the packet", packet.Source, from)
	if !bytes.Equal(packet.Data, payload) {
		p.t.fatalf("%s: the packet of %d bytes arrived as %d bytes that differ from byte %d on",
			p.name, len(payload), len(packet.Data), firstDifference(packet.Data, payload))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// wantGone waits for one peer-gone message.
func (p *peer) wantGone(who key.NodePublic, reason derp.PeerGoneReasonType) {
	p.checkGone(p.mustNext(), who, reason)
}

// checkGone makes sure that m says so.
func (p *peer) checkGone(m derp.ReceivedMessage, who key.NodePublic, reason derp.PeerGoneReasonType) {
	gone, ok := m.(derp.PeerGoneMessage)
	if !ok {
		p.t.fatalf("%s: got %T %v, want peer-gone", p.name, m, m)
	}
	want(p.t, p.name+": who is gone", gone.Peer, who)
	want(p.t, p.name+": why it is gone", gone.Reason, reason)
}

// roundTrip pings twice: when the second pong is here, the relay has read
// all that p sent before, and written all that it then had for p. (The Go
// derper may answer the first ping ahead of packets already queued.)
func (p *peer) roundTrip() {
	for range 2 {
		p.t.must(p.name+": ping", p.Ping(p.t.ctx))
	}
}

// wantNothing makes sure that nothing has come for p.
func (p *peer) wantNothing() {
	p.roundTrip()
	select {
	case m, ok := <-p.msgs:
		if !ok {
			p.t.fatalf("%s: %v", p.name, errClosed)
		}
		p.t.fatalf("%s: got %T %v, want nothing", p.name, m, m)
	default:
	}
}

// wantClosed makes sure that the relay hangs up, without another message.
func (p *peer) wantClosed() {
	switch m, err := p.next(); err {
	case errClosed:
	case nil:
		p.t.fatalf("%s: got %T %v, want the connection closed", p.name, m, m)
	default:
		p.t.fatalf("%s: the relay did not close the connection: %v", p.name, err)
	}
}
