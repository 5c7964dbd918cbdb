package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tailscale.com/net/stun"
)

var httpChecks = []check{
	{"http/latency-check", checkLatencyCheck},
	{"http/captive-portal", checkCaptivePortal},
	{"http/home", checkHome},
	{"stun/answers", checkSTUN},
}

func jsonUnmarshal(s string, v any) error { return json.Unmarshal([]byte(s), v) }

// siteURL is the URL of another path at the relay.
func (t *T) siteURL(v via, path string) string {
	base := t.relay.tls
	if v == plain {
		base = t.relay.plain
	}
	u, err := url.Parse(base)
	t.must("parse", err)
	u.Path, u.RawQuery, _ = strings.Cut(path, "?")
	return u.String()
}

// get fetches a page; header may be nil.
func (t *T) get(url string, header http.Header) (status int, body string) {
	res := t.response(url, header)
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	t.must("read "+url, err)
	return res.StatusCode, string(b)
}

func (t *T) response(url string, header http.Header) *http.Response {
	req, err := http.NewRequestWithContext(t.ctx, "GET", url, nil)
	t.must("request", err)
	if header != nil {
		req.Header = header
	}
	client := &http.Client{
		Timeout:       wait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	t.must("get "+url, err)
	return res
}

// varz is the value of one metric of the relay over TLS.
func (t *T) varz(name string) float64 {
	status, body := t.get(t.siteURL(tls13, "/debug/varz"), nil)
	want(t, "status of /debug/varz", status, 200)
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			t.must(name, err)
			return n
		}
	}
	t.fatalf("/debug/varz has no %s", name)
	return 0
}

// checkLatencyCheck measures as netcheck does where UDP is blocked.
func checkLatencyCheck(t *T) {
	for _, path := range []string{"/derp/probe", "/derp/latency-check"} {
		res := t.response(t.siteURL(tls13, path), nil)
		res.Body.Close()
		want(t, path, res.StatusCode, 200)
		want(t, path+": Access-Control-Allow-Origin", res.Header.Get("Access-Control-Allow-Origin"), "*")
	}
}

// checkCaptivePortal asks as Tailscale does when it looks for a captive
// portal: over plain HTTP, with a challenge to answer.
func checkCaptivePortal(t *T) {
	challenge := http.Header{"X-Tailscale-Challenge": {"ts_localhost"}}
	for _, base := range []string{t.relay.http, strings.TrimSuffix(t.relay.tls, "/derp")} {
		res := t.response(base+"/generate_204", challenge)
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		want(t, "status", res.StatusCode, http.StatusNoContent)
		want(t, "answer", res.Header.Get("X-Tailscale-Response"), "response ts_localhost")
		want(t, "body", string(b), "")
	}
}

func checkHome(t *T) {
	status, body := t.get(t.siteURL(tls13, "/"), nil)
	want(t, "status", status, 200)
	if !strings.Contains(body, "DERP") {
		t.fatalf("the home page does not say what this is: %q", body)
	}
}

func checkSTUN(t *T) {
	a := askSTUN(t.relay.stun)
	if a.Error != "" {
		t.fatalf("%s", a.Error)
	}
	want(t, "the address that the relay saw", a.Mapped, a.Local)
	want(t, "the address that the answer came from", a.From, t.relay.stun)
}

// stunAnswer is what came of one STUN request.
type stunAnswer struct {
	Asked  string `json:"asked"`
	Local  string `json:"local"`  // our own address, if the socket knows it
	From   string `json:"from"`   // where the answer came from
	Mapped string `json:"mapped"` // what the server says our address is
	Error  string `json:"error"`
}

// askSTUN sends Tailscale's binding request from an unconnected socket, as
// tailscaled does, so that an answer from another address is seen.
func askSTUN(addr string) (a stunAnswer) {
	a.Asked = addr
	fail := func(err error) stunAnswer { a.Error = fmt.Sprintf("STUN at %s: %v", addr, err); return a }
	dst, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return fail(err)
	}
	// Which of our addresses leads there? Connecting a UDP socket sends nothing.
	route, err := net.DialUDP("udp", nil, dst)
	if err != nil {
		return fail(err)
	}
	local := route.LocalAddr().(*net.UDPAddr)
	route.Close()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: local.IP})
	if err != nil {
		return fail(err)
	}
	defer pc.Close()
	a.Local = unmapped(pc.LocalAddr())
	tx := stun.NewTxID()
	buf := make([]byte, 2048)
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
		if _, err := pc.WriteTo(stun.Request(tx), dst); err != nil {
			return fail(err)
		}
		pc.SetReadDeadline(time.Now().Add(time.Second))
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			continue
		}
		a.From = unmapped(from)
		gotTx, mapped, err := stun.ParseResponse(buf[:n])
		if err != nil {
			return fail(err)
		}
		if gotTx != tx {
			return fail(fmt.Errorf("another transaction's answer"))
		}
		a.Mapped = mapped.String() // as the server wrote it, not unmapped
		return a
	}
	return fail(fmt.Errorf("no answer within %v", wait))
}

func unmapped(a net.Addr) string {
	ap := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}

func runSTUN(addrs []string) {
	for _, addr := range addrs {
		printJSON(askSTUN(addr))
	}
}
