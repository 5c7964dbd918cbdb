package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
)

// runControl serves Tailscale's own test control plane: every tailscaled
// that logs in is let in, and gets a DERP map with one region, ours. The
// tailnet has as many members more as there are -member flags; with -old, peers
// are told of in a form that releases before 1.80 know, too; a POST to
// /expel?member=nodekey:... makes every tailscaled forget one of them.
func runControl(args []string) {
	fs := flag.NewFlagSet("control", flag.ExitOnError)
	listen := fs.String("listen", "", "address to listen on")
	var node tailcfg.DERPNode
	fs.Func("node", "the region's only DERP node, as JSON", func(s string) error {
		return jsonUnmarshal(s, &node)
	})
	var members []key.NodePublic
	fs.Func("member", "node key of a member that no tailscaled runs for", func(s string) error {
		var k key.NodePublic
		err := k.UnmarshalText([]byte(s))
		members = append(members, k)
		return err
	})
	old := fs.Bool("old", false, "for tailscaled before 1.80")
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
	if *old {
		control.ModifyFirstMapResponse = func(res *tailcfg.MapResponse, _ *tailcfg.MapRequest) {
			go tellHomeAsOnce(control, res.Node.Key, node.RegionID)
		}
	}
	if len(members) > 0 {
		control.AddFakeNode() // the only way to add one before any has logged in
		for _, n := range control.AllNodes() {
			n.Hostinfo = someHost
			control.UpdateNode(n)
		}
	}
	for i, k := range members {
		control.UpdateNode(member(tailcfg.NodeID(1000+i), k))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /expel", func(w http.ResponseWriter, r *http.Request) {
		if err := expel(control, r.FormValue("member")); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.Handle("/", control)
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "derpcheck:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	log.Fatal(http.Serve(ln, mux))
}

// tellHomeAsOnce makes a node's home the region, and has peers told of it in
// the field that releases before capability version 111 read.
func tellHomeAsOnce(control *testcontrol.Server, k key.NodePublic, region int) {
	if n := control.Node(k); n != nil && n.LegacyDERPString == "" {
		n.HomeDERP = region
		n.LegacyDERPString = fmt.Sprintf("%s:%d", tailcfg.DerpMagicIP, region)
		control.UpdateNode(n)
	}
}

// someHost is what a member says of itself; an old tailscaled can't do without.
var someHost = (&tailcfg.Hostinfo{Hostname: "member"}).View()

// member is a node of the tailnet.
func member(id tailcfg.NodeID, k key.NodePublic) *tailcfg.Node {
	addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 100, byte(id >> 8), byte(id)}), 32)
	return &tailcfg.Node{
		ID:                id,
		StableID:          tailcfg.StableNodeID(fmt.Sprintf("MEMBER%d", id)),
		User:              tailcfg.UserID(id),
		Name:              fmt.Sprintf("member%d.", id),
		Machine:           key.NewMachine().Public(),
		Key:               k,
		DiscoKey:          key.NewDisco().Public(),
		Hostinfo:          someHost,
		MachineAuthorized: true,
		Addresses:         []netip.Prefix{addr},
		AllowedIPs:        []netip.Prefix{addr},
	}
}

// expel tells every tailscaled that a member is gone.
func expel(control *testcontrol.Server, nodeKey string) error {
	var k key.NodePublic
	if err := k.UnmarshalText([]byte(nodeKey)); err != nil {
		return err
	}
	gone := control.Node(k)
	if gone == nil {
		return fmt.Errorf("%v is no member", k)
	}
	told := 0
	for _, n := range control.AllNodes() {
		if control.AddRawMapResponse(n.Key, &tailcfg.MapResponse{PeersRemoved: []tailcfg.NodeID{gone.ID}}) {
			told++
		}
	}
	if told == 0 {
		return errors.New("no tailscaled listens")
	}
	return nil
}
