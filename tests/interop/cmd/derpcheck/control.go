package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

// runControl serves Tailscale's own test control plane: every tailscaled
// that logs in is let in, and gets a DERP map with one region, ours.
func runControl(args []string) {
	fs := flag.NewFlagSet("control", flag.ExitOnError)
	listen := fs.String("listen", "", "address to listen on")
	var node tailcfg.DERPNode
	fs.Func("node", "the region's only DERP node, as JSON", func(s string) error {
		return jsonUnmarshal(s, &node)
	})
	fs.Parse(args)
	node.RegionID = 900
	control := &testcontrol.Server{
		ExplicitBaseURL: "http://" + *listen,
		Logf:            log.Printf,
		DERPMap: &tailcfg.DERPMap{
			OmitDefaultRegions: true,
			Regions: map[int]*tailcfg.DERPRegion{
				node.RegionID: {
					RegionID:   node.RegionID,
					RegionCode: "ours",
					RegionName: "the relay under test",
					Nodes:      []*tailcfg.DERPNode{&node},
				},
			},
		},
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "derpcheck:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	log.Fatal(http.Serve(ln, control))
}
