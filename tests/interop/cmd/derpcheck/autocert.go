package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// runAutocert gets a certificate as the Go derper does, which can't be told
// to ask another authority than its own, and leaves it in a folder.
func runAutocert(args []string) {
	fs := flag.NewFlagSet("autocert", flag.ExitOnError)
	directory := fs.String("directory", "", "URL of the ACME directory")
	certdir := fs.String("certdir", "", "folder to write to")
	name := fs.String("name", "", "DNS name to get a certificate for")
	listen := fs.String("listen", "", "address at which the authority asks, by TLS-ALPN-01")
	fs.Parse(args)
	m := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		HostPolicy: autocert.HostWhitelist(*name),
		Cache:      autocert.DirCache(*certdir),
		Client: &acme.Client{
			DirectoryURL: *directory,
			HTTPClient:   &http.Client{Transport: locator{}},
		},
	}
	if err := getOne(m, *name, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "derpcheck:", err)
		os.Exit(1)
	}
}

// locator adds what pebble leaves out and Let's Encrypt does not: where the
// order is that was finalized. The Go client depends on it.
type locator struct{}

func (locator) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	order := strings.Replace(req.URL.String(), "/finalize-order/", "/my-order/", 1)
	if err == nil && order != req.URL.String() {
		res.Header.Set("Location", order)
	}
	return res, err
}

// getOne has m get a certificate, as if a modern client had asked for name.
func getOne(m *autocert.Manager, name, listen string) error {
	ln, err := tls.Listen("tcp", listen, m.TLSConfig())
	if err != nil {
		return err
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				c.(*tls.Conn).Handshake()
				c.Close()
			}()
		}
	}()
	_, err = m.GetCertificate(&tls.ClientHelloInfo{
		ServerName:       name,
		SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves:  []tls.CurveID{tls.CurveP256},
		CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	})
	return err
}
