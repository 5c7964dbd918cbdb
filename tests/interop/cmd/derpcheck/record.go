package main

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/net/stun"
	"tailscale.com/types/key"
)

// recording is both directions of one connection, in hex.
type recording struct {
	Sent     string `json:"sent"`
	Received string `json:"received"`
}

// taped is a connection that remembers what went through it.
type taped struct {
	net.Conn
	mu             sync.Mutex
	sent, received []byte
}

func (c *taped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received = append(c.received, b[:n]...)
	return n, err
}

func (c *taped) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, b[:n]...)
	return n, err
}

func (c *taped) recording() recording {
	c.mu.Lock()
	defer c.mu.Unlock()
	return recording{hex.EncodeToString(c.sent), hex.EncodeToString(c.received)}
}

// tapedClient is a derphttp client with a tape, and a key that was given.
type tapedClient struct {
	*derphttp.Client
	key  key.NodePublic
	tape *taped
}

// runRecord plays one exchange of Go's client with a Go derper over plain
// HTTP, and prints the bytes. The keys, and everything sent but the nonces of
// the boxes, are the same at each call.
func runRecord(args []string) {
	fs := flag.NewFlagSet("record", flag.ExitOnError)
	url := fs.String("plain", "", "URL of the derper without TLS")
	keys := map[string]key.NodePrivate{}
	for _, name := range []string{"alice", "bob", "mesh", "nobody"} {
		fs.Func(name, "private key of "+name+", in hex", func(s string) (err error) {
			keys[name], err = key.ParseNodePrivateUntyped(mem.S(s))
			return err
		})
	}
	var meshKey key.DERPMesh
	fs.Func("mesh-key", "the derper's mesh key", func(s string) (err error) {
		meshKey, err = key.ParseDERPMesh(s)
		return err
	})
	var stunAddrs []string
	fs.Func("stun", "host:port of a STUN server; may be given more than once", func(s string) error {
		stunAddrs = append(stunAddrs, s)
		return nil
	})
	fs.Parse(args)
	log.SetOutput(os.Stderr)

	login := func(name string, opts ...option) *tapedClient {
		c, err := derphttp.NewClient(keys[name], *url, log.Printf, netmon.NewStatic())
		mustDo("client", err)
		for _, o := range opts {
			o(c)
		}
		tc := &tapedClient{Client: c, key: keys[name].Public()}
		c.SetURLDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			tc.tape = &taped{Conn: conn}
			return tc.tape, err
		})
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		mustDo("connect", c.Connect(ctx))
		recvAs[derp.ServerInfoMessage](tc)
		return tc
	}

	bob := login("bob")
	alice := login("alice", func(c *derphttp.Client) { c.SetCanAckPings(true); c.AppName = "record" })
	mustDo("ping", alice.SendPing([8]byte([]byte("ping #01"))))
	recvAs[derp.PongMessage](alice)
	alice.NotePreferred(true)
	mustDo("pong", alice.SendPong([8]byte([]byte("pong #01"))))
	for _, p := range [][]byte{{}, []byte("hello, bob"), counting(1400)} {
		mustDo("send", alice.Send(bob.key, p))
		recvAs[derp.ReceivedPacket](bob)
	}
	mustDo("send", alice.Send(keys["nobody"].Public(), append([]byte("TS💬"), counting(94)...)))
	recvAs[derp.PeerGoneMessage](alice)
	alice.Close()
	recvAs[derp.PeerGoneMessage](bob)

	watcher := login("mesh", func(c *derphttp.Client) { c.MeshKey = meshKey; c.WatchConnectionChanges = true })
	for range 2 { // bob and the watcher itself
		recvAs[derp.PeerPresentMessage](watcher)
	}
	mustDo("forward", watcher.ForwardPacket(alice.key, bob.key, []byte("forwarded")))
	recvAs[derp.ReceivedPacket](bob)
	log.Print("waiting for a keepalive, for 65 seconds at most")
	recvAs[derp.KeepAliveMessage](bob)
	mustDo("close peer", watcher.ClosePeer(bob.key))
	recvAs[derp.PeerGoneMessage](watcher)

	out := map[string]any{
		"alice": alice.tape.recording(),
		"bob":   bob.tape.recording(),
		"mesh":  watcher.tape.recording(),
	}
	for _, addr := range stunAddrs {
		out["stun "+addr] = recordSTUN(addr)
	}
	printJSON(out)
}

// counting is n bytes: 0, 1, 2 and so on.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// recvAs takes the next message, which must be a T, or the next but some
// keepalives, unless a keepalive is what is waited for.
func recvAs[T derp.ReceivedMessage](c *tapedClient) {
	for {
		m, err := c.Recv()
		mustDo("receive", err)
		if _, ok := m.(T); ok {
			return
		}
		if _, ok := m.(derp.KeepAliveMessage); !ok {
			mustDo("receive", fmt.Errorf("got a %T", m))
		}
	}
}

// mustDo gives up on any error: a recording is whole or not at all.
func mustDo(doing string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "derpcheck: %s: %v\n", doing, err)
		os.Exit(1)
	}
}

// recordSTUN asks with a fixed transaction ID.
func recordSTUN(addr string) map[string]string {
	dst, err := net.ResolveUDPAddr("udp", addr)
	mustDo("resolve", err)
	conn, err := net.DialUDP("udp", nil, dst)
	mustDo("dial", err)
	defer conn.Close()
	request := stun.Request(stun.TxID([]byte("transaction!")))
	buf := make([]byte, 2048)
	for range 10 {
		_, err = conn.Write(request)
		mustDo("write", err)
		conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			continue
		}
		return map[string]string{
			"local":    conn.LocalAddr().String(),
			"sent":     hex.EncodeToString(request),
			"received": hex.EncodeToString(buf[:n]),
		}
	}
	mustDo("STUN", fmt.Errorf("no answer from %s", addr))
	return nil
}
