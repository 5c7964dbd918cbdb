package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derpconst"
	"tailscale.com/derp/derphttp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

var loginChecks = []check{
	{"login/tls13", func(t *T) { t.checkLogin(tls13) }},
	{"login/tls12", func(t *T) { t.checkLogin(tls12) }},
	{"login/plain", func(t *T) { t.checkLogin(plain) }},
	{"login/websocket", func(t *T) { t.checkLogin(websocket) }},
	{"login/websocket-plain", func(t *T) { t.checkLogin(websocketPlain) }},
	{"login/pinned", func(t *T) { t.checkLogin(pinned) }},
	{"login/wrong-pin", checkWrongPin},
	{"login/metacert", checkMetacert},
	{"login/region-second-node", checkSecondNode},
	{"login/websocket-upgrade-without-subprotocol", checkOldUpgrade},
	{"login/prober-with-app-name", checkProber},
	{"login/again-after-close", checkAgain},
	{"login/hundred-at-once", checkHundred},
}

// checkLogin logs in and asks for one pong, so that both directions work.
func (t *T) checkLogin(v via) {
	p := t.login(v)
	t.must("ping", p.Ping(t.ctx))
	if state, ok := p.TLSConnectionState(); ok {
		t.notef("%s, %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
		switch v {
		case tls12:
			want(t, "TLS version", state.Version, tls.VersionTLS12)
		case tls13, pinned:
			want(t, "TLS version", state.Version, tls.VersionTLS13)
		}
	} else if v == tls13 || v == tls12 || v == pinned {
		t.fatalf("no TLS state")
	}
}

func checkWrongPin(t *T) {
	node := t.relay.pinned
	sum, ok := strings.CutPrefix(node.CertName, "sha256-raw:")
	if !ok || len(sum) != 64 {
		t.fatalf("the node's CertName is %q, want sha256-raw:…", node.CertName)
	}
	wrong := "0"
	if sum[0] == '0' {
		wrong = "1"
	}
	node.CertName = "sha256-raw:" + wrong + sum[1:]
	c := t.newRegionClient(key.NewNode(), node)
	defer c.Close()
	if err := c.Connect(t.ctx); err == nil {
		t.fatalf("connected in spite of a pin that does not match")
	}
}

// checkMetacert looks at the chain as derphttp does when it decides whether
// to start fast: over TLS 1.3 it looks for a certificate named derpkey…,
// whose serial number is the protocol's version. With one, it sends
// Derp-Fast-Start and expects no 101; so that login works says the rest.
func checkMetacert(t *T) {
	p := t.login(tls13)
	state, ok := p.TLSConnectionState()
	if !ok {
		t.fatalf("no TLS state")
	}
	chain := state.PeerCertificates
	if len(chain) < 2 {
		t.fatalf("%d certificates in the chain, want the leaf and the metacert at least", len(chain))
	}
	meta := chain[len(chain)-1]
	hex, ok := strings.CutPrefix(meta.Subject.CommonName, derpconst.MetaCertCommonNamePrefix)
	if !ok {
		t.fatalf("the last certificate is named %q, not %s…", meta.Subject.CommonName, derpconst.MetaCertCommonNamePrefix)
	}
	want(t, "key in the metacert", hex, p.ServerPublicKey().UntypedHexString())
	want(t, "serial number", meta.SerialNumber.Int64(), int64(derp.ProtocolVersion))
	if _, ok := meta.PublicKey.(ed25519.PublicKey); !ok {
		t.fatalf("the metacert's key is a %T, want Ed25519", meta.PublicKey)
	}
	t.must("the metacert's own signature", meta.CheckSignature(meta.SignatureAlgorithm, meta.RawTBSCertificate, meta.Signature))
	if now := time.Now(); now.Before(meta.NotBefore) || now.After(meta.NotAfter) {
		t.fatalf("the metacert is valid from %v to %v", meta.NotBefore, meta.NotAfter)
	}
	if !meta.BasicConstraintsValid {
		t.fatalf("the metacert has no basic constraints, which macOS asks for")
	}
	t.must("the leaf's name", chain[0].VerifyHostname("localhost"))
}

// checkSecondNode reaches the relay as the second node of its region, the
// first being down: the client then sends the Ideal-Node header, which the
// relay counts.
func checkSecondNode(t *T) {
	const gauge = "derp_current_notideal_connections"
	before := t.varz(gauge)
	u, err := url.Parse(t.relay.tls)
	t.must("parse", err)
	port, err := net.LookupPort("tcp", u.Port())
	t.must("port", err)
	down := tailcfg.DERPNode{Name: "900a", HostName: "localhost", IPv4: "127.0.0.1", IPv6: "none", DERPPort: t.deadPort()}
	up := tailcfg.DERPNode{Name: "900b", HostName: u.Hostname(), IPv4: "127.0.0.1", IPv6: "none", DERPPort: port}
	c := t.newRegionClient(key.NewNode(), down, up)
	defer c.Close()
	t.must("connect", c.Connect(t.ctx))
	m, err := c.Recv()
	t.must("receive", err)
	if !isInfo(m) {
		t.fatalf("got %T, want the server's info", m)
	}
	want(t, gauge, t.varz(gauge), before+1)
}

// deadPort is a port of loopback where nobody listens.
func (t *T) deadPort() int {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	t.must("listen", err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// checkOldUpgrade upgrades as the very first Tailscale versions did: to
// "websocket", without a subprotocol, and speaks raw DERP.
func checkOldUpgrade(t *T) {
	u, err := url.Parse(t.relay.plain)
	t.must("parse", err)
	conn, err := net.DialTimeout("tcp", u.Host, wait)
	t.must("dial", err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	brw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	req, err := http.NewRequest("GET", t.relay.plain, nil)
	t.must("request", err)
	req.Header.Set("Upgrade", "WebSocket")
	req.Header.Set("Connection", "Upgrade")
	t.must("write", req.Write(brw))
	t.must("flush", brw.Flush())
	res, err := http.ReadResponse(brw.Reader, req)
	t.must("response", err)
	want(t, "status", res.StatusCode, http.StatusSwitchingProtocols)
	want(t, "Upgrade header", res.Header.Get("Upgrade"), "DERP")
	want(t, "Derp-Version header", res.Header.Get("Derp-Version"), fmt.Sprint(derp.ProtocolVersion))
	c, err := derp.NewClient(key.NewNode(), conn, brw, log.Printf)
	t.must("login", err)
	want(t, "Derp-Public-Key header", res.Header.Get("Derp-Public-Key"), c.ServerPublicKey().UntypedHexString())
	m, err := c.Recv()
	t.must("receive", err)
	if !isInfo(m) {
		t.fatalf("got %T, want the server's info", m)
	}
}

func checkProber(t *T) {
	a := t.login(tls13, func(c *derphttp.Client) { c.IsProber = true; c.AppName = "derpcheck ✓"; c.SetCanAckPings(true) })
	b := t.login(tls13)
	t.passPacket(a, b, []byte("from a prober"))
}

// checkAgain logs the same key in again as soon as it has hung up.
func checkAgain(t *T) {
	priv := key.NewNode()
	other := t.login(tls13)
	for i := range 20 {
		p := t.loginAs(priv, tls13)
		t.must("send", p.Send(other.key, []byte{byte(i)}))
		for {
			// The last connection's peer-gone comes when the relay has seen
			// that it is closed; not at all where this one logged in sooner.
			m := other.mustNext()
			if _, ok := m.(derp.PeerGoneMessage); ok {
				continue
			}
			packet, ok := m.(derp.ReceivedPacket)
			if !ok || packet.Source != p.key || len(packet.Data) != 1 || packet.Data[0] != byte(i) {
				t.fatalf("got %T %v, want packet %d", m, m, i)
			}
			break
		}
		t.passPacket(other, p, []byte{byte(i)})
		p.close()
	}
}

// checkHundred logs a hundred clients in at the same time, and each sends
// to the next one.
func checkHundred(t *T) {
	const n = 100
	ctx, cancel := context.WithTimeout(t.ctx, 3*wait)
	defer cancel()
	clients := make([]*derphttp.Client, n)
	for i := range clients {
		clients[i] = t.newClient(key.NewNode(), tls13)
		defer clients[i].Close()
	}
	greeted, served := make(chan error, n), make(chan error, n)
	for i, c := range clients {
		before := clients[(i+n-1)%n].SelfPublicKey()
		go func() {
			if err := c.Connect(ctx); err != nil {
				greeted <- err
				return
			}
			m, err := c.Recv()
			if err == nil && !isInfo(m) {
				err = fmt.Errorf("client %d was greeted with %T", i, m)
			}
			greeted <- err
			if err != nil {
				return
			}
			m, err = c.Recv()
			packet, ok := m.(derp.ReceivedPacket)
			if err == nil && (!ok || packet.Source != before || string(packet.Data) != fmt.Sprint(i)) {
				err = fmt.Errorf("client %d got %T %v", i, m, m)
			}
			served <- err
		}()
	}
	all := func(doing string, c chan error) {
		for range n {
			select {
			case err := <-c:
				t.must(doing, err)
			case <-ctx.Done():
				t.fatalf("%s: %v", doing, ctx.Err())
			}
		}
	}
	all("login", greeted)
	for i, c := range clients {
		next := (i + 1) % n
		t.must("send", c.Send(clients[next].SelfPublicKey(), []byte(fmt.Sprint(next))))
	}
	all("receive", served)
}
