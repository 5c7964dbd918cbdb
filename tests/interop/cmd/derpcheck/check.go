package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"tailscale.com/derp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// checkTimeout bounds one check, with its look at the relay's health.
const checkTimeout = 60 * time.Second

// wait bounds one wait for something that should come at once.
const wait = 10 * time.Second

// A check is one thing that a relay must do.
type check struct {
	name string
	run  func(*T)
}

// checks is every check, in the order in which they run.
var checks = concat(loginChecks, packetChecks, peerChecks, meshChecks, httpChecks)

func concat(groups ...[]check) (all []check) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

// T is one run of one check: where the relay is, and what to clean up.
type T struct {
	ctx    context.Context
	relay  relayAddrs
	detail string
	peers  []*peer
}

// relayAddrs says where the relay under test serves what. A check whose
// address is missing fails.
type relayAddrs struct {
	tls    string // URL, like https://localhost:8443/derp
	plain  string // URL, like http://127.0.0.1:3340/derp
	http   string // URL of the port-80 listener, without a path
	stun   string // UDP host:port
	pinned tailcfg.DERPNode
	books  string // path and query of the consistency check
}

// failure is what fatalf panics with.
type failure string

func (t *T) fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// must ends the check if err is not nil.
func (t *T) must(doing string, err error) {
	if err != nil {
		t.fatalf("%s: %v", doing, err)
	}
}

// notef sets what the check reports when all is well.
func (t *T) notef(format string, args ...any) { t.detail = fmt.Sprintf(format, args...) }

// closeAll hangs up every connection the check has made.
func (t *T) closeAll() {
	for _, p := range t.peers {
		p.close()
	}
	t.peers = nil
}

// result is what is printed for a check.
type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func runChecks(args []string) {
	fs := flag.NewFlagSet("run", flag.ExitOnError)
	var relay relayAddrs
	fs.StringVar(&relay.tls, "tls", "", "URL of the relay over TLS")
	fs.StringVar(&relay.plain, "plain", "", "URL of the relay without TLS")
	fs.StringVar(&relay.http, "http", "", "URL of the relay's port-80 listener")
	fs.StringVar(&relay.stun, "stun", "", "host:port of the relay's STUN")
	fs.StringVar(&relay.books, "books", "/debug/check", "path of the relay's consistency check, and its query")
	fs.Func("pinned", "DERP node of the relay with a pinned certificate, as JSON", func(s string) error {
		return jsonUnmarshal(s, &relay.pinned)
	})
	verbose := fs.Bool("v", false, "log what the client says")
	fs.Parse(args)
	if !*verbose {
		log.SetOutput(io.Discard)
	}

	byName := map[string]check{}
	for _, c := range checks {
		byName[c.name] = c
	}
	failed := false
	for _, name := range fs.Args() {
		c, ok := byName[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "derpcheck: no check is called %q\n", name)
			os.Exit(2)
		}
		r := c.result(relay)
		printJSON(r)
		failed = failed || !r.OK
	}
	if failed {
		os.Exit(1)
	}
}

// result runs the check, then makes sure that the relay still serves others.
func (c check) result(relay relayAddrs) result {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	t := &T{ctx: ctx, relay: relay}
	if err := t.attempt(c.run); err != nil {
		return result{c.name, false, err.Error()}
	}
	detail := t.detail
	if err := t.attempt((*T).health); err != nil {
		return result{c.name, false, "afterwards the relay is unhealthy: " + err.Error()}
	}
	return result{c.name, true, detail}
}

// attempt runs f, closes what it opened, and turns fatalf into an error.
func (t *T) attempt(f func(*T)) (err error) {
	defer func() {
		t.closeAll()
		switch r := recover().(type) {
		case nil:
		case failure:
			err = fmt.Errorf("%s", string(r))
		default:
			panic(r)
		}
	}()
	f(t)
	return nil
}

// health logs two fresh clients in, passes a packet each way, and asks the
// relay's own consistency check.
func (t *T) health() {
	for _, via := range []via{tls13, plain} {
		a, b := t.login(via), t.login(via)
		t.passPacket(a, b, []byte("are you well?"))
		t.passPacket(b, a, []byte("never better"))
	}
	t.closeAll()
	// The Go derper's check fails for as long as a key is connected twice,
	// and connections that were just closed may take a moment to go.
	t.eventually("the consistency check is okay", func() error {
		status, body := t.get(t.siteURL(tls13, t.relay.books), nil)
		if status != 200 {
			return fmt.Errorf("/debug/check: %d %s", status, body)
		}
		return nil
	})
}

// eventually waits until f has nothing to say against it.
func (t *T) eventually(what string, f func() error) {
	deadline := time.Now().Add(wait)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.fatalf("not so after %v: %s: %v", wait, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// passPacket sends payload and waits for it to arrive, whole and alone.
func (t *T) passPacket(from, to *peer, payload []byte) {
	t.must("send", from.Send(to.key, payload))
	to.wantPacket(from.key, payload)
}

// want fails unless got is what was wanted.
func want[V comparable](t *T, what string, got, want V) {
	if got != want {
		t.fatalf("%s: got %v, want %v", what, got, want)
	}
}

// isInfo reports whether m is a server's greeting.
func isInfo(m derp.ReceivedMessage) bool { _, ok := m.(derp.ServerInfoMessage); return ok }

// someKey is a public key that nobody has logged in with.
func someKey() key.NodePublic { return key.NewNode().Public() }
