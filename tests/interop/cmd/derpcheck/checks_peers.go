package main

import (
	"fmt"
	"time"

	"tailscale.com/derp"
	"tailscale.com/disco"
	"tailscale.com/types/key"
)

var peerChecks = []check{
	{"ping/every-transport", checkPingEverywhere},
	{"ping/many", checkPingMany},
	{"peer-gone/disconnected", checkGoneDisconnected},
	{"peer-gone/not-here", checkGoneNotHere},
	{"peer-gone/once", checkGoneOnce},
	{"duplicates/last-login-gets-traffic", checkDuplicateLastLogin},
	{"duplicates/last-writer-gets-traffic", checkDuplicateLastWriter},
	{"duplicates/other-takes-over", checkDuplicateTakesOver},
	{"duplicates/gone-with-the-last", checkDuplicateGone},
	{"note-preferred", checkNotePreferred},
	{"traffic-is-counted", checkTrafficCounted},
}

func newKey() key.NodePrivate { return key.NewNode() }

func checkPingEverywhere(t *T) {
	for _, v := range everyVia {
		p := t.login(v)
		for range 5 {
			t.must(fmt.Sprintf("ping over %s", v), p.Ping(t.ctx))
		}
	}
}

func checkPingMany(t *T) {
	p := t.login(tls13)
	start := time.Now()
	const n = 500
	for range n {
		t.must("ping", p.Ping(t.ctx))
	}
	t.notef("%d pings, %v each", n, (time.Since(start) / n).Round(time.Microsecond))
}

// checkGoneDisconnected: who got something from a client is told when it
// leaves; who did not, isn't.
func checkGoneDisconnected(t *T) {
	leaver, friend, sender, stranger := t.login(tls13), t.login(tls13), t.login(tls13), t.login(tls13)
	t.passPacket(leaver, friend, []byte("hello"))
	t.passPacket(sender, leaver, []byte("hello"))
	leaver.close()
	friend.wantGone(leaver.key, derp.PeerGoneReasonDisconnected)
	friend.wantNothing()
	sender.wantNothing()
	stranger.wantNothing()
}

// checkGoneNotHere: a disco packet to somebody unknown is answered, others
// are not.
func checkGoneNotHere(t *T) {
	p := t.login(tls13)
	nobody := someKey()
	for _, quiet := range [][]byte{{}, payload(200, 6), discoPacket(discoOverhead - 1)} {
		t.must("send", p.Send(nobody, quiet))
		p.wantNothing()
	}
	for _, n := range []int{discoOverhead, 150} {
		t.must("send", p.Send(nobody, discoPacket(n)))
		p.wantGone(nobody, derp.PeerGoneReasonNotHere)
		p.wantNothing()
	}
}

// discoOverhead is the shortest packet that passes for disco: the magic, the
// sender's key and a nonce.
const discoOverhead = len(disco.Magic) + key.DiscoPublicRawLen + disco.NonceLen

// discoPacket is n bytes that begin as disco packets do.
func discoPacket(n int) []byte {
	return append([]byte(disco.Magic), payload(n-len(disco.Magic), 6)...)
}

// checkGoneOnce: however many packets came, one peer-gone is sent to each
// connection that got them; and none for a later life of the same peer, for
// the Go derper notes a source once for the life of a connection.
func checkGoneOnce(t *T) {
	priv := newKey()
	friend := t.login(tls13)
	for life := range 2 {
		leaver := t.loginAs(priv, tls13)
		for i := range 5 {
			t.passPacket(leaver, friend, []byte{byte(i)})
		}
		watcher := t.login(tls13)
		t.passPacket(leaver, watcher, []byte("you know me only now"))
		leaver.close()
		watcher.wantGone(leaver.key, derp.PeerGoneReasonDisconnected)
		if life == 0 {
			friend.wantGone(leaver.key, derp.PeerGoneReasonDisconnected)
		}
		friend.wantNothing()
		watcher.wantNothing()
	}
}

// checkDuplicateLastLogin: a fresh connection gets the traffic of its key.
func checkDuplicateLastLogin(t *T) {
	priv := newKey()
	first, sender := t.loginAs(priv, tls13), t.login(tls13)
	t.passPacket(sender, first, []byte("to the only one"))
	second := t.loginAs(priv, tls13)
	t.passPacket(sender, second, []byte("to the newer"))
	third := t.loginAs(priv, tls12)
	t.passPacket(sender, third, []byte("to the newest"))
}

// checkDuplicateLastWriter: any frame makes its connection the active one.
func checkDuplicateLastWriter(t *T) {
	priv := newKey()
	first, second, sender := t.loginAs(priv, tls13), t.loginAs(priv, tls13), t.login(tls13)
	for i := range 3 {
		first.roundTrip()
		t.passPacket(sender, first, []byte{byte(i), 1})
		second.roundTrip()
		t.passPacket(sender, second, []byte{byte(i), 2})
		t.passPacket(first, sender, []byte{byte(i), 3})
		t.passPacket(sender, first, []byte{byte(i), 4})
		first.wantNothing()
		second.wantNothing()
	}
}

// checkDuplicateTakesOver: when the active connection is closed, the other
// one gets the traffic.
func checkDuplicateTakesOver(t *T) {
	priv := newKey()
	first, second, sender := t.loginAs(priv, tls13), t.loginAs(priv, tls13), t.login(tls13)
	t.passPacket(sender, second, []byte("to the newer"))
	second.close()
	t.eventually("the older connection gets the traffic", func() error {
		t.must("send", sender.Send(first.key, []byte("to the older")))
		sender.roundTrip()
		first.roundTrip()
		if len(first.msgs) == 0 {
			return fmt.Errorf("nothing came")
		}
		return nil
	})
	first.wantPacket(sender.key, []byte("to the older"))
	sender.wantNothing()
}

// checkDuplicateGone: peer-gone comes when the last connection of a key is
// closed, not before.
func checkDuplicateGone(t *T) {
	priv := newKey()
	first, second, friend := t.loginAs(priv, tls13), t.loginAs(priv, tls13), t.login(tls13)
	t.passPacket(first, friend, []byte("one"))
	t.passPacket(second, friend, []byte("two"))
	const gauge = "derp_current_connections"
	before := t.varz(gauge)
	second.close()
	t.eventually("the relay has seen the close", func() error {
		if now := t.varz(gauge); now != before-1 {
			return fmt.Errorf("%s is %v, want %v", gauge, now, before-1)
		}
		return nil
	})
	friend.wantNothing()
	first.close()
	friend.wantGone(first.key, derp.PeerGoneReasonDisconnected)
	friend.wantNothing()
}

// checkNotePreferred: the relay counts whose home it is.
func checkNotePreferred(t *T) {
	const gauge = "derp_current_home_connections"
	before := t.varz(gauge)
	p := t.login(tls13)
	wantGauge := func(n float64) {
		p.roundTrip()
		want(t, gauge, t.varz(gauge), before+n)
	}
	wantGauge(0)
	p.NotePreferred(true)
	wantGauge(1)
	p.NotePreferred(false)
	wantGauge(0)
	p.NotePreferred(true)
	wantGauge(1)
	p.close()
	t.eventually("leaving ends it", func() error {
		if now := t.varz(gauge); now != before {
			return fmt.Errorf("%s is %v, want %v", gauge, now, before)
		}
		return nil
	})
}

// checkTrafficCounted: the counters on a dashboard move as they should.
func checkTrafficCounted(t *T) {
	a, b := t.login(tls13), t.login(tls13)
	names := []string{
		"derp_packets_received", "derp_packets_sent", "derp_bytes_received", "derp_bytes_sent",
		`derp_packets_received_kind{kind="disco"}`, `derp_packets_received_kind{kind="other"}`,
		`derp_packets_dropped{reason="unknown_dest",kind="other"}`,
	}
	before := map[string]float64{}
	for _, n := range names {
		before[n] = t.varz(n)
	}
	t.passPacket(a, b, payload(1000, 5))
	t.passPacket(b, a, discoPacket(100))
	t.must("send", a.Send(someKey(), payload(10, 5)))
	a.roundTrip()
	b.roundTrip()
	for i, n := range []float64{3, 2, 1110, 1100, 1, 2, 1} {
		want(t, names[i], t.varz(names[i])-before[names[i]], n)
	}
}
