// Attacks with datagrams.

package main

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"sync"
)

const datagramSockets = 16

// datagrams sends what make writes, from several sockets.
func datagrams(makeOne func(buf []byte, number uint32) []byte) attack {
	return func(a *attacker) (func(), error) {
		to, err := net.ResolveUDPAddr("udp4", a.stun)
		if err != nil {
			return nil, err
		}
		sockets := make([]*net.UDPConn, datagramSockets)
		for i := range sockets {
			if sockets[i], err = net.DialUDP("udp4", &net.UDPAddr{IP: a.address4()}, to); err != nil {
				return nil, err
			}
		}
		return func() {
			var done sync.WaitGroup
			for _, socket := range sockets {
				done.Go(func() {
					buf := make([]byte, 0, 512)
					for number := uint32(0); ; number++ {
						datagram := makeOne(buf, number)
						if !a.at.spend(len(datagram) + udpIP) {
							return
						}
						_, _ = socket.Write(datagram)
					}
				})
			}
			done.Wait()
		}, nil
	}
}

// stunJunk is a binding request with something wrong: too short, another cookie, a length that is
// not true, attributes that run over the end, no fingerprint, a wrong one.
func stunJunk(buf []byte, number uint32) []byte {
	buf = buf[:stunSize]
	request(buf, 1, 0, number)
	switch number % 6 {
	case 0:
		return buf[:number/6%20]
	case 1:
		buf[4] ^= 1
	case 2:
		binary.BigEndian.PutUint16(buf[2:], uint16(number))
	case 3:
		binary.BigEndian.PutUint16(buf[22:], 0xffff)
	case 4:
		buf[39] ^= 1
	case 5:
		_, _ = rand.Read(buf[20:])
	}
	return buf
}

func stunAsked(buf []byte, number uint32) []byte {
	buf = buf[:stunSize]
	request(buf, 1, 0, number)
	return buf
}
