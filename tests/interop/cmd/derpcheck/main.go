// Derpcheck puts a running derper to the test with the DERP client that
// Tailscale ships, and lends the tests the other Go parts they need.
//
//	derpcheck list                  the names of all checks
//	derpcheck run [flags] NAME...   run checks; one JSON line each
//	derpcheck control [flags]       a control server, for real tailscaled
//	derpcheck serve [flags]         an HTTP server of pseudo-random bytes
//	derpcheck fetch [flags] URL     fetch through a SOCKS5 proxy; size and hash as JSON
//	derpcheck stun ADDR...          ask STUN servers; one JSON line each
//	derpcheck talk [flags]          two clients of one DERP node; one JSON line
//	derpcheck stay [flags]          two clients that stay; one JSON line for what they see
//	derpcheck across URL...         a client at each of several relays, all to all; one JSON line
//	derpcheck storm [flags]         clients that come and go, and some that stay and echo
//	derpcheck fleet [flags]         clients that stay, and come back as tailscaled does
//	derpcheck limited [flags]       a client that sends all the time, under changing rate limits
//	derpcheck autocert [flags]      get a certificate as the Go derper does
//	derpcheck record [flags]        play one exchange and print its bytes, for vectors
//
// Which certificates to trust comes from SSL_CERT_FILE, as for any Go program.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "list":
		for _, c := range checks {
			fmt.Println(c.name)
		}
	case "run":
		runChecks(args)
	case "control":
		runControl(args)
	case "serve":
		runServe(args)
	case "fetch":
		runFetch(args)
	case "stun":
		runSTUN(args)
	case "talk":
		runTalk(args)
	case "stay":
		runStay(args)
	case "across":
		runAcross(args)
	case "storm":
		runStorm(args)
	case "fleet":
		runFleet(args)
	case "limited":
		runLimited(args)
	case "autocert":
		runAutocert(args)
	case "record":
		runRecord(args)
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: derpcheck list|run|control|serve|fetch|stun|talk|stay|across|storm|fleet|limited|autocert|record")
	os.Exit(2)
}

// printJSON writes v as one line.
func printJSON(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(b, '\n'))
}
