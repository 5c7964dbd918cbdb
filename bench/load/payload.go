// Packets that can be checked to the last byte for next to nothing.
//
// Layout of a packet, big-endian; 24 bytes at least:
//
//	0:4    04 00 00 00, as a WireGuard data message begins
//	4:8    flow: which sender, and to whom
//	8:16   sequence number within the flow, from 0
//	16:24  when it was made, nanoseconds of this process's monotonic clock
//	24:    a slice of a table of random bytes; where it begins follows from flow and sequence
//
// Making a packet is one copy and checking it one memcmp, yet every byte that is missing, changed
// or from another packet shows.

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

const (
	packetHeader = 24
	packetMagic  = 0x04000000
	maxPacket    = 64 << 10
	patternSpan  = 16 << 10
)

var pattern = makePattern()

func makePattern() []byte {
	table := make([]byte, patternSpan+maxPacket)
	state := uint64(0x243f6a8885a308d3)
	for i := 0; i < len(table); i += 8 {
		// splitmix64
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(table[i:], z^z>>31)
	}
	return table
}

func patternFor(flow uint32, sequence uint64, length int) []byte {
	start := int((sequence*0x9e3779b97f4a7c15^uint64(flow)*0xc2b2ae3d27d4eb4f)>>40) & (patternSpan - 1)
	return pattern[start : start+length]
}

// appendPacket appends a packet of size bytes.
func appendPacket(buf []byte, flow uint32, sequence uint64, now int64, size int) []byte {
	buf = binary.BigEndian.AppendUint32(buf, packetMagic)
	buf = binary.BigEndian.AppendUint32(buf, flow)
	buf = binary.BigEndian.AppendUint64(buf, sequence)
	buf = binary.BigEndian.AppendUint64(buf, uint64(now))
	return append(buf, patternFor(flow, sequence, size-packetHeader)...)
}

// parsePacket checks everything that a packet says about itself.
func parsePacket(packet []byte) (flow uint32, sequence uint64, made int64, err error) {
	if len(packet) < packetHeader || binary.BigEndian.Uint32(packet) != packetMagic {
		return 0, 0, 0, fmt.Errorf("%d bytes that are no packet of ours: % x", len(packet), packet[:min(len(packet), 32)])
	}
	flow = binary.BigEndian.Uint32(packet[4:])
	sequence = binary.BigEndian.Uint64(packet[8:])
	made = int64(binary.BigEndian.Uint64(packet[16:]))
	if !bytes.Equal(packet[packetHeader:], patternFor(flow, sequence, len(packet)-packetHeader)) {
		return 0, 0, 0, fmt.Errorf("packet %d of flow %d arrived with other bytes than it was sent with", sequence, flow)
	}
	return flow, sequence, made, nil
}
