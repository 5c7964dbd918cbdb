// Attacks on the login, and by those who are let in or not.

package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/nacl/box"
)

const (
	mostInfo  = 256 << 10
	nonceSize = 24
	junkBox   = 60
	infoText  = `{"version":2,"CanAckPings":true}`
)

// info is the frame of a login, as long as may be.
func info() func() byte { return endless(string(longInfo()[:frameHeader]), 'a') }

// longInfo lacks its last byte.
func longInfo() []byte {
	frame := binary.BigEndian.AppendUint32([]byte{frameClientInfo}, mostInfo)
	return append(frame, make([]byte, mostInfo-1)...)
}

// junkLogin looks like a login until its box is opened.
func junkLogin(c *client) func([]byte) []byte {
	frame := make([]byte, frameHeader+keyLength+nonceSize+junkBox)
	frame[0] = frameClientInfo
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-frameHeader))
	_, _ = rand.Read(frame[frameHeader:])
	return once(append([]byte(fastRequest), frame...))(c)
}

// login is what a client sends to log in, when it knows the server's key.
func login(who *identity, server key) []byte {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:])
	who.meet(server)
	body := append(who.public[:len(who.public):len(who.public)], nonce[:]...)
	body = box.SealAfterPrecomputation(body, []byte(infoText), &nonce, &who.shared)
	frame := binary.BigEndian.AppendUint32([]byte{frameClientInfo}, uint32(len(body)))
	return append([]byte(fastRequest), append(frame, body...)...)
}

// loggedIn opens a connection and logs in with a key of its own.
func loggedIn(a *attacker) (*client, error) { return a.logIn(newIdentity()) }

func (a *attacker) logIn(who *identity) (*client, error) {
	c, err := bare(a)
	if err != nil {
		return nil, err
	}
	if c, err = logIn(&a.target, c.conn, who); err != nil {
		a.refused.Add(1)
		return nil, err
	}
	a.admitted.Add(1)
	return c, nil
}

// replays sends one login again and again, which who has seen it can do where there is no TLS.
func replays(a *attacker) (func(), error) {
	who := newIdentity()
	c, err := a.logIn(who)
	if err != nil {
		return nil, err
	}
	a.keep(c.conn)
	return repeated(bare, once(login(who, who.server)), againOnAnswer)(a)
}

// duplicates logs one key in again and again, and keeps the connections.
func duplicates(a *attacker) (func(), error) {
	who := newIdentity()
	open := func(a *attacker) (*client, error) {
		same := *who
		return a.logIn(&same)
	}
	return held(open, nothing)(a)
}

// strangers all want in at once, once.
func strangers(a *attacker) (func(), error) {
	them := make([]*identity, a.count)
	for i := range them {
		them[i] = newIdentity()
	}
	return func() {
		var done sync.WaitGroup
		for _, who := range them {
			done.Go(func() {
				if c, err := a.logIn(who); err == nil {
					a.keep(c.conn)
				}
			})
		}
		done.Wait()
	}, nil
}

// gone has clients leave to whom others have talked, so that each of those has to be told.
func gone(a *attacker) (func(), error) {
	const told = 64
	var packets []byte
	for range told {
		who := newIdentity()
		c, err := a.logIn(who)
		if err != nil {
			return nil, err
		}
		newListener(c.conn, false)
		a.keep(c.conn)
		packets = append(packets, packetTo(who.public[:], nil)...)
	}
	return repeated(loggedIn, once(packets), again)(a)
}

const (
	trickle     = 512 // bytes, each time
	trickleTime = 250 * time.Millisecond
	fillers     = 4
	// filling is how many packets each of them gets from one sender, before the next one's turn.
	filling = 800
)

// trickling has receivers that take little, and senders that fill their queues.
func trickling(a *attacker) (func(), error) {
	a.target.thin = true
	var receivers []*client
	for _, c := range a.openAll(loggedIn) {
		if c != nil {
			receivers = append(receivers, c)
			a.keep(c.conn)
		}
	}
	a.target.thin = false
	a.count = fillers
	senders := a.openAll(loggedIn)
	if len(receivers) == 0 || slices.Contains(senders, nil) {
		return nil, fmt.Errorf("can't log in: %v", a.notes)
	}
	for _, c := range senders {
		newListener(c.conn, false)
		a.keep(c.conn)
	}
	packet := make([]byte, 1400)
	return func() {
		var done sync.WaitGroup
		for _, c := range receivers {
			go func() {
				for buffer := make([]byte, trickle); ; time.Sleep(trickleTime) {
					if _, err := c.conn.Read(buffer); err != nil {
						a.ended.Add(1)
						return
					}
				}
			}()
		}
		for i, c := range senders {
			done.Go(func() {
				_ = c.conn.SetWriteDeadline(time.Now().Add(a.left()))
				buf := make([]byte, 0, maxRecordSize)
				for next := i * filling; !a.over() && next/filling < len(receivers); {
					buf = buf[:0]
					to := receivers[next/filling]
					for range 8 {
						buf = c.wrap(buf, packetTo(to.public[:], packet))
						next++
					}
					if next%filling == 0 {
						next += (len(senders) - 1) * filling
					}
					if _, err := c.conn.Write(buf); err != nil {
						a.note(err)
						return
					}
				}
			})
		}
		done.Wait()
	}, nil
}
