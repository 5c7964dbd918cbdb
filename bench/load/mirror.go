// A relay that does next to nothing: it finds out how much the load client can do.
//
// It speaks enough DERP to log clients in and hands each packet to its destination, in TLS records
// as large as they get. It counts nothing, limits nothing and drops nothing. With it in a relay's
// place, the client is what limits a rate, or at least it can do that much.

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"flag"
	"math/big"
	"net"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/crypto/nacl/box"
)

// peer is a client as the mirror sees it.
type peer struct {
	*client
	name  key
	queue []byte // frames that are not sealed yet
	dirty bool
}

type mirror struct {
	identity *identity
	epoll    int
	joined   chan *peer
	byKey    map[key]*peer
	byFD     map[int32]*peer
	dirty    []*peer
	raw      []byte
	plain    []byte
	out      []byte
}

const mirrorQueue = 4 << 20

// runMirror takes the Go derper's flags, and heeds two of them.
func runMirror(arguments []string) error {
	flags := flag.NewFlagSet("mirror", flag.ExitOnError)
	address := flags.String("a", "", "where to serve")
	mode := flags.String("certmode", "", "manual means TLS")
	for _, other := range []string{"c", "certdir", "hostname", "http-port", "stun-port"} {
		flags.String(other, "", "of no account")
	}
	_ = flags.Parse(arguments)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	var config *tls.Config
	if *mode == "manual" {
		if config, err = mirrorTLS(); err != nil {
			return err
		}
	}
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	m := &mirror{
		identity: newIdentity(),
		epoll:    epoll,
		joined:   make(chan *peer, 64),
		byKey:    map[key]*peer{},
		byFD:     map[int32]*peer{},
		raw:      make([]byte, 2*readSize),
		plain:    make([]byte, 0, 3*readSize),
		out:      make([]byte, 0, 4*readSize+2*mirrorQueue),
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				if p, err := m.admit(conn, config); err == nil {
					m.joined <- p
				} else {
					conn.Close()
				}
			}()
		}
	}()
	return m.run()
}

func mirrorTLS() (*tls.Config, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: private}},
		MinVersion:   tls.VersionTLS13,
		// A ticket would be a record that the sequence number has to allow for.
		SessionTicketsDisabled: true,
	}, nil
}

func (m *mirror) admit(conn net.Conn, config *tls.Config) (*peer, error) {
	_ = conn.SetDeadline(time.Now().Add(loginTimeout))
	p := &peer{client: &client{conn: conn, fd: -1}}
	if config != nil {
		seen := &recorder{Conn: conn}
		var keyLog strings.Builder
		config = config.Clone()
		config.KeyLogWriter = &keyLog
		secure := tls.Server(seen, config)
		if err := secure.Handshake(); err != nil {
			return nil, err
		}
		in, out, rest, err := takeOver(secure, seen, keyLog.String(), true)
		if err != nil {
			return nil, err
		}
		p.in, p.out, p.rawTail = in, out, append([]byte(nil), rest...)
	}
	var head []byte
	for {
		more, err := p.readPlain()
		if err != nil {
			return nil, err
		}
		head = append(head, more...)
		if _, rest, found := strings.Cut(string(head), "\r\n\r\n"); found {
			p.tail = []byte(rest)
			break
		}
	}
	greeting := append([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"), frameServerKey, 0, 0, 0, keyLength+8)
	greeting = append(append(greeting, derpMagic...), m.identity.public[:]...)
	if err := p.write(greeting); err != nil {
		return nil, err
	}
	err := p.readFrames(func(kind byte, body []byte) error {
		if kind != frameClientInfo || len(body) < keyLength {
			return errors.New("no client info")
		}
		p.name = key(body[:keyLength])
		return errDone
	})
	if err != nil {
		return nil, err
	}
	var nonce [24]byte
	_, _ = rand.Read(nonce[:])
	public, private := [32]byte(p.name), [32]byte(m.identity.private)
	info := box.Seal(nonce[:], []byte(`{"version":2}`), &nonce, &public, &private)
	frame := binary.BigEndian.AppendUint32([]byte{frameServerInfo}, uint32(len(info)))
	return p, p.write(append(frame, info...))
}

func (m *mirror) run() error {
	var events [64]syscall.EpollEvent
	for {
		n, err := syscall.EpollWait(m.epoll, events[:], 10)
		if err != nil && err != syscall.EINTR {
			return err
		}
		for len(m.joined) > 0 {
			if err := m.join(<-m.joined); err != nil {
				return err
			}
		}
		for i := range max(0, n) {
			p := m.byFD[events[i].Fd]
			if p == nil {
				continue
			}
			if events[i].Events&syscall.EPOLLOUT != 0 {
				m.send(p)
			}
			if events[i].Events&^syscall.EPOLLOUT != 0 {
				m.read(p)
			}
		}
	}
}

func (m *mirror) join(p *peer) error {
	_ = p.conn.SetDeadline(time.Time{})
	if err := p.detach(); err != nil {
		return err
	}
	m.byKey[p.name], m.byFD[int32(p.fd)] = p, p
	p.watching = syscall.EPOLLIN
	event := syscall.EpollEvent{Events: p.watching, Fd: int32(p.fd)}
	return syscall.EpollCtl(m.epoll, syscall.EPOLL_CTL_ADD, p.fd, &event)
}

func (m *mirror) leave(p *peer) {
	delete(m.byFD, int32(p.fd))
	delete(m.byKey, p.name)
	p.close()
}

func (m *mirror) read(p *peer) {
	kept := copy(m.raw, p.rawTail)
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(p.fd), uintptr(unsafe.Pointer(&m.raw[kept])), readSize)
	if errno == syscall.EAGAIN || errno == syscall.EINTR {
		return
	}
	if errno != 0 || n == 0 {
		m.leave(p)
		return
	}
	plain, err := p.decrypt(append(m.plain[:0], p.tail...), m.raw[:kept+int(n)])
	if err == nil {
		err = p.frames(plain, func(kind byte, body []byte) error { return m.frame(p, kind, body) })
	}
	if err != nil {
		m.leave(p)
	}
	for _, to := range m.dirty {
		to.dirty = false
		m.send(to)
	}
	m.dirty = m.dirty[:0]
}

func (m *mirror) frame(from *peer, kind byte, body []byte) error {
	if kind != frameSendPacket || len(body) < keyLength {
		return nil
	}
	to := m.byKey[key(body[:keyLength])]
	if to == nil {
		return nil
	}
	for len(to.queue) > mirrorQueue && to.fd >= 0 {
		m.send(to)
	}
	to.queue = append(to.queue, frameRecvPacket)
	to.queue = binary.BigEndian.AppendUint32(to.queue, uint32(len(body)))
	to.queue = append(to.queue, from.name[:]...)
	to.queue = append(to.queue, body[keyLength:]...)
	if !to.dirty {
		to.dirty = true
		m.dirty = append(m.dirty, to)
	}
	return nil
}

// send writes what the socket did not take before, then seals and writes what is queued.
func (m *mirror) send(p *peer) {
	if p.fd < 0 {
		return
	}
	data := p.unsent
	if len(data) == 0 {
		data = m.out[:0]
		for queue := p.queue; len(queue) > 0; {
			part := min(len(queue), maxPlaintext)
			start := len(data)
			if p.out != nil {
				data = p.out.seal(append(data[:start+recordHeader], queue[:part]...), start)
			} else {
				data = append(data, queue[:part]...)
			}
			queue = queue[part:]
		}
		p.queue = p.queue[:0]
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_SENDTO, uintptr(p.fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)))
	if errno != 0 {
		if errno != syscall.EAGAIN && errno != syscall.EINTR {
			m.leave(p)
			return
		}
		n = 0
	}
	p.unsent = append(p.unsent[:0], data[n:]...)
	events := uint32(syscall.EPOLLIN)
	if len(p.unsent)+len(p.queue) > 0 {
		events |= syscall.EPOLLOUT
	}
	if events != p.watching {
		p.watching = events
		event := syscall.EpollEvent{Events: events, Fd: int32(p.fd)}
		_ = syscall.EpollCtl(m.epoll, syscall.EPOLL_CTL_MOD, p.fd, &event)
	}
}
