package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// blob reads size pseudo-random bytes, always the same ones.
func blob(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
}

// runServe serves a blob at every path, and prints its SHA-256.
func runServe(args []string) {
	fs := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := fs.String("listen", "", "address to listen on")
	size := fs.Int64("size", 0, "bytes to serve")
	fs.Parse(args)
	h := sha256.New()
	io.Copy(h, blob(*size))
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "derpcheck:", err)
		os.Exit(1)
	}
	fmt.Println(hex.EncodeToString(h.Sum(nil)))
	log.Fatal(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, blob(*size))
	})))
}

// fetched is what came of a transfer.
type fetched struct {
	Bytes   int64   `json:"bytes"`
	SHA256  string  `json:"sha256"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error"`
}

func runFetch(args []string) {
	fs := flag.NewFlagSet("fetch", flag.ExitOnError)
	socks := fs.String("socks", "", "host:port of a SOCKS5 proxy")
	timeout := fs.Duration("timeout", time.Minute, "time for the whole transfer")
	fs.Parse(args)
	client := &http.Client{
		Timeout:   *timeout,
		Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5", Host: *socks})},
	}
	var f fetched
	start := time.Now()
	res, err := client.Get(fs.Arg(0))
	if err == nil {
		h := sha256.New()
		f.Bytes, err = io.Copy(h, res.Body)
		res.Body.Close()
		f.SHA256 = hex.EncodeToString(h.Sum(nil))
	}
	if err != nil {
		f.Error = err.Error()
	}
	f.Seconds = time.Since(start).Seconds()
	printJSON(f)
}
