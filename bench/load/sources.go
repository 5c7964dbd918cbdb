// `load sources`: what a relay asks who may use it, in place of a control server and a tailscaled:
// quick, so that a storm shows the relay's limits and not those of what it asks.
//
// It reads the keys that belong from standard input, in hex, up to a line "begin", and says where
// it listens. At the next line it prints how often it was asked, and how often at once at most.

package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type sources struct {
	takes    time.Duration
	turns    sync.Mutex
	oneByOne bool
	belong   map[string]bool
	asked    atomic.Int64
	now      atomic.Int64
	most     atomic.Int64
}

func runSources(arguments []string) error {
	s := &sources{belong: map[string]bool{}}
	flags := flag.NewFlagSet("sources", flag.ExitOnError)
	socket := flags.String("socket", "", "path of the socket of a tailscaled, in place of a URL")
	flags.DurationVar(&s.takes, "takes", 0, "time that an answer takes")
	flags.BoolVar(&s.oneByOne, "one-by-one", false, "answer one question after the other")
	_ = flags.Parse(arguments)
	useAllDescriptors()
	runtime.GOMAXPROCS(sleepers)
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() && orders.Text() != "begin" {
		s.belong["nodekey:"+orders.Text()] = true
	}
	network, address := "tcp", "127.0.0.1:0"
	if *socket != "" {
		network, address = "unix", *socket
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	http.HandleFunc("POST /verify", s.verify)
	http.HandleFunc("GET /localapi/v0/whois", s.whois)
	http.HandleFunc("GET /localapi/v0/status", s.status)
	go func() { _ = http.Serve(listener, nil) }()
	fmt.Println(listener.Addr())
	orders.Scan()
	return json.NewEncoder(os.Stdout).Encode(map[string]int64{
		"asked": s.asked.Load(), "most": s.most.Load(),
	})
}

// work takes the time that an answer takes.
func (s *sources) work() func() {
	s.asked.Add(1)
	now := s.now.Add(1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	if s.oneByOne {
		s.turns.Lock()
		defer s.turns.Unlock()
	}
	if s.takes > 0 {
		time.Sleep(s.takes)
	}
	return func() { s.now.Add(-1) }
}

func (s *sources) verify(w http.ResponseWriter, r *http.Request) {
	defer s.work()()
	var question struct{ NodePublic string }
	if body, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(body, &question) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]bool{"Allow": s.belong[question.NodePublic]})
}

func (s *sources) whois(w http.ResponseWriter, r *http.Request) {
	defer s.work()()
	if node := r.URL.Query().Get("addr"); !s.belong[node] {
		http.Error(w, "no match for IP:port", http.StatusNotFound)
		return
	}
	fmt.Fprint(w, strings.TrimSpace(`{"Node":{"ID":7},"UserProfile":{"LoginName":"someone@example.com"}}`))
}

// status follows a whois that found nobody.
func (s *sources) status(w http.ResponseWriter, _ *http.Request) {
	defer s.work()()
	fmt.Fprint(w, `{"BackendState":"Running","Self":{"PublicKey":"nodekey:`+strings.Repeat("0", 2*keyLength)+`"}}`)
}
