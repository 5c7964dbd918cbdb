// Command load puts one load on one DERP relay and prints what came of it, as JSON.
//
// It is started by run.py, which also explains what is measured and how. `load mirror` is a relay
// that does next to nothing; see mirror.go. `load attack` and `load victim` are what tests/hostile
// starts, `load storm` and `load sources` what tests/storms does; see attacker.go, victim.go,
// storm.go and sources.go.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"syscall"
	"time"
)

var loads = map[string]func(*options) (*result, error){
	"best":     loadBest,
	"rate":     loadRate,
	"inflight": loadInflight,
	"flat":     loadFlat,
	"rtt":      loadRTT,
	"many":     loadMany,
	"slow":     loadSlow,
	"login":    loadLogin,
	"idle":     loadIdle,
	"stun":     loadSTUN,
	"shares":   loadShares,
	"ping":     loadPing,
	"stall":    loadStall,
	"trickle":  loadTrickle,
}

var commands = map[string]func(arguments []string) error{
	"mirror":  runMirror,
	"attack":  runAttack,
	"victim":  runVictim,
	"storm":   runStorm,
	"sources": runSources,
}

func main() {
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		if err := commands[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.load, "load", "", "name of the load")
	flag.StringVar(&o.address, "address", "", "ip:port of the relay")
	flag.BoolVar(&o.plain, "plain", false, "the relay speaks HTTP, not HTTPS")
	flag.BoolVar(&o.websocket, "websocket", false, "connect by websocket")
	flag.StringVar(&o.stun, "stun", "", "ip:port of its STUN responder")
	flag.StringVar(&o.second, "second", "", "ip:port of a second relay, meshed with the first; receivers are connected there")
	flag.Func("pid", "process id of the relay; repeatable", func(text string) error {
		pid, err := strconv.Atoi(text)
		o.pids = append(o.pids, pid)
		return err
	})
	flag.IntVar(&o.serverCore, "server-core", 0, "the relay's core")
	flag.IntVar(&o.clientCore, "client-core", 1, "this program's core")
	flag.BoolVar(&o.shared, "shared", false, "the relay has both cores, and this program shares them with it; see shared.go")
	flag.IntVar(&o.deals, "deals", 1, "inflight: parts of the measured time, each with connections of its own")
	flag.IntVar(&o.size, "size", 1400, "bytes of a packet")
	flag.IntVar(&o.pairs, "pairs", 1, "pairs of clients")
	flag.IntVar(&o.senders, "senders", 0, "senders to one receiver, in place of pairs")
	flag.IntVar(&o.dests, "dests", 0, "receivers of one sender, in place of pairs")
	flag.IntVar(&o.burst, "burst", 1, "rate, shares: packets sent at a time")
	flag.IntVar(&o.clients, "clients", 200, "clients")
	flag.Float64Var(&o.rate, "rate", 10000, "packets a second")
	flag.IntVar(&o.window, "window", 512, "packets under way")
	flag.IntVar(&o.pack, "pack", 1, "packets in a TLS record; real clients send 1")
	flag.DurationVar(&o.warmup, "warmup", 300*time.Millisecond, "time before the measurement")
	flag.DurationVar(&o.seconds, "seconds", 3*time.Second, "time of the measurement")
	flag.DurationVar(&o.settle, "settle", 4*time.Second, "idle, slow, trickle: time until things have settled; stall: time between two")
	flag.Float64Var(&o.take, "take", 0, "shares, ping, stall, trickle: Mbit/s that the receiver takes, or each; 0 for all")
	flag.Float64Var(&o.offer, "offer", 2, "shares, ping, stall: how much is sent to it, as a multiple of that")
	flag.BoolVar(&o.own, "own", false, "ping: from the bulk flow's own sender")
	flag.DurationVar(&o.stall, "stall", time.Second, "stall: time for which the receiver reads nothing")
	flag.BoolVar(&o.steady, "steady", false, "stun: -rate requests a second, one at a time")
	flag.DurationVar(&o.trial, "trial", time.Second, "best: time of a trial")
	flag.Float64Var(&o.start, "start", 40000, "best: the first rate tried")
	flag.DurationVar(&o.budget, "budget", time.Minute, "best: time after which to be content with less")
	flag.Float64Var(&o.grain, "grain", 0.03, "best: how closely to look, as a share of the rate")
	profile := flag.String("profile", "", "write a CPU profile of this program to a file")
	flag.Parse()

	run, ok := loads[o.load]
	if !ok || o.address == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	useAllDescriptors()
	// Nothing is allocated while a load runs, and what a login leaves behind is little.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(2 << 30)
	if *profile != "" {
		file, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "-profile:", err)
			os.Exit(2)
		}
	}
	r, err := run(&o)
	pprof.StopCPUProfile()
	if err != nil {
		fmt.Fprintf(os.Stderr, "load %s: %v\n", o.load, err)
		os.Exit(1)
	}
	encoder := json.NewEncoder(os.Stdout)
	_ = encoder.Encode(r)
}

func useAllDescriptors() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}
