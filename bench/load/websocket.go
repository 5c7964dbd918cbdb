// Websocket frames (RFC 6455 section 5): a client's are masked, a server's are not.

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	opContinuation = 0
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// Any mask will do here; it has to be done, and undone by the server.
const maskWord = 0x5bd1e995

// appendMessage appends data as one binary message of a client.
func appendMessage(buf, data []byte) []byte {
	buf = append(buf, 0x80|opBinary)
	switch {
	case len(data) < 126:
		buf = append(buf, 0x80|byte(len(data)))
	case len(data) < 1<<16:
		buf = append(buf, 0x80|126, byte(len(data)>>8), byte(len(data)))
	default:
		buf = append(buf, 0x80|127)
		buf = binary.BigEndian.AppendUint64(buf, uint64(len(data)))
	}
	buf = binary.BigEndian.AppendUint32(buf, maskWord)
	start := len(buf)
	buf = append(buf, data...)
	body := buf[start:]
	const wide = maskWord<<32 | maskWord
	for len(body) >= 8 {
		binary.BigEndian.PutUint64(body, binary.BigEndian.Uint64(body)^wide)
		body = body[8:]
	}
	for i := range body {
		body[i] ^= byte(uint32(maskWord) >> (24 - 8*(i&3)))
	}
	return buf
}

// deframer takes a server's messages apart.
type deframer struct {
	left    int // of the frame's payload
	control bool
}

// feed appends the payload in data to dst, and returns what of data is an incomplete header.
func (d *deframer) feed(dst, data []byte) ([]byte, []byte, error) {
	for {
		if d.left > 0 {
			n := min(d.left, len(data))
			if !d.control {
				dst = append(dst, data[:n]...)
			}
			d.left -= n
			data = data[n:]
		}
		if len(data) < 2 {
			return dst, data, nil
		}
		header, length := 2, int(data[1]&0x7f)
		if data[1]&0x80 != 0 {
			return dst, data, errors.New("websocket: the server masks")
		}
		switch length {
		case 126:
			if header = 4; len(data) < header {
				return dst, data, nil
			}
			length = int(binary.BigEndian.Uint16(data[2:]))
		case 127:
			if header = 10; len(data) < header {
				return dst, data, nil
			}
			length = int(binary.BigEndian.Uint64(data[2:]))
		}
		switch opcode := data[0] & 0x0f; opcode {
		case opContinuation, opBinary:
			d.control = false
		case opPing, opPong:
			d.control = true
		case opClose:
			return dst, data, io.EOF
		default:
			return dst, data, fmt.Errorf("websocket: frame with opcode %d", opcode)
		}
		d.left = length
		data = data[header:]
	}
}
