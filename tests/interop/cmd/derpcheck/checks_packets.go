package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"

	"tailscale.com/derp"
	"tailscale.com/disco"
)

var packetChecks = []check{
	{"packets/tls13", func(t *T) { t.checkSizes(tls13, sizes) }},
	{"packets/tls12", func(t *T) { t.checkSizes(tls12, sizes) }},
	{"packets/plain", func(t *T) { t.checkSizes(plain, sizes) }},
	{"packets/pinned", func(t *T) { t.checkSizes(pinned, sizes) }},
	{"packets/websocket", func(t *T) { t.checkSizes(websocket, upTo(sizes, websocketMessage)) }},
	{"packets/websocket-plain", func(t *T) { t.checkSizes(websocketPlain, upTo(sizes, websocketMessage)) }},
	{"packets/websocket-large", func(t *T) { t.checkSizes(websocket, sizes) }},
	{"packets/between-transports", checkBetweenTransports},
	{"packets/to-self", checkToSelf},
	{"packets/disco", checkDisco},
	{"packets/many-in-order", checkManyInOrder},
	{"packets/20-megabytes", func(t *T) { t.checkBulk(tls13) }},
	{"packets/20-megabytes-websocket", func(t *T) { t.checkBulk(websocket) }},
	{"packets/many-senders", checkManySenders},
	{"packets/to-unknown-then-known", checkUnknownThenKnown},
}

// sizes goes from nothing to the largest packet there is, with the places
// where keys, buffers and TLS records end.
var sizes = []int{
	0, 1, 31, 32, 33, 1200, 1400, 4095, 4096, 16383, 16384, 16385, 32768, 65535, derp.MaxPacketSize,
}

// websocketMessage is what one message holds at most in the websocket
// library of both the Go derper and its client, unless told otherwise, which
// they are not. A frame may be cut into messages anywhere, but Go's bufio
// writes the rest of a large packet as one.
const websocketMessage = 32 << 10

func upTo(sizes []int, limit int) (small []int) {
	for _, n := range sizes {
		if n <= limit {
			small = append(small, n)
		}
	}
	return small
}

// payload is n bytes that look like nothing else, the same at each call.
func payload(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// checkSizes sends a packet of each size both ways.
func (t *T) checkSizes(v via, sizes []int) {
	a, b := t.login(v), t.login(v)
	for _, n := range sizes {
		t.passPacket(a, b, payload(n, 1))
		t.passPacket(b, a, payload(n, 2))
	}
	a.wantNothing()
	b.wantNothing()
	t.notef("%d sizes up to %d bytes, both ways", len(sizes), sizes[len(sizes)-1])
}

// checkBetweenTransports sends from each way in to each other.
func checkBetweenTransports(t *T) {
	var peers []*peer
	for _, v := range everyVia {
		if v == pinned {
			continue // that is another relay
		}
		peers = append(peers, t.login(v))
	}
	onPlain := func(p *peer) bool { return p.name[:5] == "plain" || p.name[:len(p.name)-2] == string(websocketPlain) }
	n := 0
	for _, from := range peers {
		for _, to := range peers {
			if onPlain(from) != onPlain(to) {
				continue // so is that
			}
			t.passPacket(from, to, []byte(from.name+" to "+to.name))
			n++
		}
	}
	t.notef("%d pairs", n)
}

func checkToSelf(t *T) {
	p := t.login(tls13)
	t.passPacket(p, p, []byte("myself"))
}

// checkDisco sends packets that bear disco's mark, and such as nearly do.
func checkDisco(t *T) {
	a, b := t.login(tls13), t.login(tls13)
	whole := discoPacket(106)
	for _, p := range [][]byte{whole, []byte(disco.Magic), []byte(disco.Magic)[:5], whole[1:]} {
		t.passPacket(a, b, p)
		t.passPacket(b, a, p)
	}
}

// inFlight is how many packets a sender may have on the way without the Go
// derper's queue (32 for each client) dropping any.
const inFlight = 24

// checkManyInOrder sends a few thousand packets through a small window, each
// with its number, and all must arrive in order.
func checkManyInOrder(t *T) {
	const n = 3000
	a, b := t.login(tls13), t.login(tls13)
	number := func(i int) []byte {
		return binary.BigEndian.AppendUint32(payload(i*7%1400, 4), uint32(i))
	}
	for i := range n + inFlight {
		if i >= inFlight {
			b.wantPacket(a.key, number(i-inFlight))
		}
		if i < n {
			t.must("send", a.Send(b.key, number(i)))
		}
	}
	b.wantNothing()
	t.notef("%d packets", n)
}

// checkBulk sends 20 MB each way at once, through a small window, and compares
// checksums.
func (t *T) checkBulk(v via) {
	const size, n = 16 << 10, 20 << 20 / (16 << 10)
	a, b := t.login(v), t.login(v)
	sent, got := map[*peer]hash.Hash{}, map[*peer]hash.Hash{}
	for _, p := range []*peer{a, b} {
		sent[p], got[p] = sha256.New(), sha256.New()
	}
	random := rand.NewChaCha8([32]byte{1})
	for i := range n + inFlight {
		for from, to := range map[*peer]*peer{a: b, b: a} {
			if i >= inFlight {
				packet, ok := to.mustNext().(derp.ReceivedPacket)
				if !ok || packet.Source != from.key {
					t.fatalf("%s: packet %d is something else", to.name, i-inFlight)
				}
				got[from].Write(packet.Data)
			}
			if i < n {
				data := make([]byte, size)
				random.Read(data)
				sent[from].Write(data)
				t.must("send", from.Send(to.key, data))
			}
		}
	}
	for p := range sent {
		want(t, "SHA-256 of what came", fmt.Sprintf("%x", got[p].Sum(nil)), fmt.Sprintf("%x", sent[p].Sum(nil)))
	}
	t.notef("%d MiB each way", n*size>>20)
}

// checkManySenders has ten clients send to one, which must get each one's
// packets in order and with the right source.
func checkManySenders(t *T) {
	const n, rounds = 10, 50
	to := t.login(tls13)
	senders := map[string]*peer{}
	var list []*peer
	for range n {
		p := t.login(tls13)
		senders[p.key.String()] = p
		list = append(list, p)
	}
	for round := range rounds {
		for _, p := range list {
			t.must("send", p.Send(to.key, fmt.Appendf(nil, "%s %d", p.key, round)))
		}
		for range list {
			m := to.mustNext()
			packet, ok := m.(derp.ReceivedPacket)
			if !ok {
				t.fatalf("got %T %v, want a packet", m, m)
			}
			want(t, "packet", string(packet.Data), fmt.Sprintf("%s %d", packet.Source, round))
			if senders[packet.Source.String()] == nil {
				t.fatalf("a packet came from %v, who is nobody", packet.Source)
			}
		}
	}
	t.notef("%d packets", n*rounds)
}

// checkUnknownThenKnown sends to a key before and after it logs in.
func checkUnknownThenKnown(t *T) {
	a := t.login(tls13)
	priv := newKey()
	t.must("send", a.Send(priv.Public(), []byte("too early")))
	a.wantNothing()
	b := t.loginAs(priv, tls13)
	t.passPacket(a, b, []byte("in time"))
	b.wantNothing()
}
