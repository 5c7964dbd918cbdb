// One DERP client: dials, logs in, and turns bytes into frames and back.

package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/nacl/box"
)

const (
	frameHeader = 5
	keyLength   = 32
	overhead    = frameHeader + keyLength
	derpMagic   = "DERP🔑"

	frameServerKey  = 0x01
	frameClientInfo = 0x02
	frameServerInfo = 0x03
	frameSendPacket = 0x04
	frameRecvPacket = 0x05
	frameKeepAlive  = 0x06
	framePeerGone   = 0x08
	framePing       = 0x12
	framePong       = 0x13
	frameHealth     = 0x14
	frameRestarting = 0x15

	loginTimeout = 20 * time.Second

	thinBuffer  = 8 << 10
	thinSegment = 1400
)

type key [keyLength]byte

// identity is a client's key pair, and what it shares with the server whose key it is meant for.
type identity struct {
	public, private key
	server          key
	shared          [32]byte
}

func newIdentity() *identity {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &identity{public: *public, private: *private}
}

// meet gets ready for a server, which takes a good part of a login's time.
func (i *identity) meet(server key) {
	if i.server != server {
		i.server = server
		box.Precompute(&i.shared, (*[32]byte)(&server), (*[32]byte)(&i.private))
	}
}

// target is the relay under load and how to talk to it.
type target struct {
	address string
	// second is a relay that is meshed with it: of those who log in, every other one goes there.
	second    string
	plain     bool
	websocket bool
	// thin makes the connection like one over a path that holds little: small receive buffer,
	// segments as on Ethernet.
	thin bool
	// source is the address that connections come from; any, if nil.
	source net.IP
}

// client is one logged-in connection. Until detach it is a blocking one, from then on it belongs
// to a loop.
type client struct {
	*identity
	index int

	conn net.Conn
	fd   int

	in, out *direction // nil without TLS
	deframe *deframer  // nil without websocket

	rawTail   []byte // an incomplete TLS record
	frameTail []byte // an incomplete websocket header
	tail      []byte // an incomplete DERP frame

	unsent   []byte // what the socket did not take
	watching uint32 // epoll events
	sealing  []byte // a frame too large for one record

	readDue   int64 // for a client that reads slowly
	readCount uint64
}

// frameHandler is told of every whole DERP frame; body is only lent.
type frameHandler func(kind byte, body []byte) error

// dial connects and logs in: with fast start where there is TLS, as tailscaled does.
func dial(t *target, who *identity) (*client, error) {
	tcp, err := t.connect()
	if err != nil {
		return nil, err
	}
	return logIn(t, tcp, who)
}

// connect opens a TCP connection, or one to the Unix socket at "unix:/path".
func (t *target) connect() (net.Conn, error) {
	if path, ok := strings.CutPrefix(t.address, "unix:"); ok {
		return net.DialTimeout("unix", path, loginTimeout)
	}
	dialer := net.Dialer{Timeout: loginTimeout}
	if t.source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: t.source}
	}
	if t.thin {
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, thinBuffer)
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, thinSegment)
			})
		}
	}
	return dialer.Dial("tcp", t.address)
}

// logIn makes a client of a connection, which it closes if that fails.
func logIn(t *target, tcp net.Conn, who *identity) (*client, error) {
	c := &client{identity: who, conn: tcp, fd: -1}
	_ = tcp.SetDeadline(time.Now().Add(loginTimeout))
	if err := c.login(t); err != nil {
		tcp.Close()
		return nil, err
	}
	_ = tcp.SetDeadline(time.Time{})
	return c, nil
}

func (c *client) login(t *target) error {
	var serverKey *key
	if !t.plain {
		var err error
		if serverKey, err = c.handshake(&tls.Config{InsecureSkipVerify: true}); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
	}
	host := t.address
	switch {
	case t.websocket:
		request := "GET /derp HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
			"Sec-WebSocket-Protocol: derp\r\n\r\n"
		if err := c.upgradeWith(request); err != nil {
			return err
		}
		c.deframe = &deframer{}
		var err error
		if c.tail, err = c.unwrap(nil, c.tail); err != nil {
			return err
		}
	case serverKey != nil:
		request := "GET /derp HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Connection: Upgrade\r\nDerp-Fast-Start: 1\r\nUpgrade: DERP\r\n\r\n"
		return c.authenticate([]byte(request), serverKey)
	default:
		request := "GET /derp HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Connection: Upgrade\r\nUpgrade: DERP\r\n\r\n"
		if err := c.upgradeWith(request); err != nil {
			return err
		}
	}
	err := c.readFrames(func(kind byte, body []byte) error {
		if kind != frameServerKey || len(body) < len(derpMagic)+keyLength || string(body[:len(derpMagic)]) != derpMagic {
			return fmt.Errorf("frame %#x with %d bytes where the server's key should be", kind, len(body))
		}
		serverKey = (*key)(body[len(derpMagic):])
		return errDone
	})
	if err != nil {
		return err
	}
	clone := *serverKey
	return c.authenticate(nil, &clone)
}

// handshake does TLS and returns the server's DERP key from its metacert, nil without one.
func (c *client) handshake(config *tls.Config) (*key, error) {
	seen := &recorder{Conn: c.conn}
	var keyLog strings.Builder
	config.KeyLogWriter = &keyLog
	conn := tls.Client(seen, config)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	in, out, rest, err := takeOver(conn, seen, keyLog.String(), false)
	if err != nil {
		return nil, err
	}
	c.in, c.out, c.rawTail = in, out, append([]byte(nil), rest...)
	chain := conn.ConnectionState().PeerCertificates
	if name, ok := strings.CutPrefix(chain[len(chain)-1].Subject.CommonName, "derpkey"); ok {
		if raw, err := hex.DecodeString(name); err == nil && len(raw) == keyLength {
			return (*key)(raw), nil
		}
	}
	return nil, nil
}

// upgradeWith sends an HTTP request and reads the 101 that answers it.
func (c *client) upgradeWith(request string) error {
	if err := c.write([]byte(request)); err != nil {
		return err
	}
	var response []byte
	for {
		plain, err := c.readPlain()
		if err != nil {
			return err
		}
		response = append(response, plain...)
		if head, rest, found := strings.Cut(string(response), "\r\n\r\n"); found {
			if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
				return fmt.Errorf("the upgrade was refused: %q", head)
			}
			c.tail = []byte(rest)
			return nil
		}
	}
}

// authenticate proves the client's key and waits for the server info.
func (c *client) authenticate(before []byte, serverKey *key) error {
	var nonce [24]byte
	_, _ = rand.Read(nonce[:])
	c.meet(*serverKey)
	body := append(c.public[:len(c.public):len(c.public)], nonce[:]...)
	body = box.SealAfterPrecomputation(body, []byte(`{"version":2,"CanAckPings":true}`), &nonce, &c.shared)
	frame := binary.BigEndian.AppendUint32([]byte{frameClientInfo}, uint32(len(body)))
	frame = append(frame, body...)
	if c.deframe != nil {
		frame = appendMessage(nil, frame)
	}
	if err := c.write(append(before, frame...)); err != nil {
		return err
	}
	return c.readFrames(func(kind byte, body []byte) error {
		switch kind {
		case frameServerKey:
			return nil
		case frameServerInfo:
			if len(body) < len(nonce) {
				return errors.New("short server info")
			}
			info, ok := box.OpenAfterPrecomputation(nil, body[len(nonce):], (*[24]byte)(body), &c.shared)
			if !ok || !json.Valid(info) {
				return errors.New("the server info can't be opened")
			}
			return errDone
		}
		return fmt.Errorf("frame %#x during login", kind)
	})
}

var errDone = errors.New("done")

// write sends during login, blocking.
func (c *client) write(data []byte) error {
	if c.out != nil {
		data = c.out.seal(append(make([]byte, recordHeader, len(data)+64), data...), 0)
	}
	_, err := c.conn.Write(data)
	return err
}

// readPlain reads something during login, blocking, and returns it without TLS.
func (c *client) readPlain() ([]byte, error) {
	var raw [maxRecordSize]byte
	n := 0
	if len(c.rawTail) == 0 || recordSize(c.rawTail) > len(c.rawTail) || recordSize(c.rawTail) == 0 {
		var err error
		if n, err = c.conn.Read(raw[:]); err != nil {
			return nil, err
		}
	}
	return c.decrypt(nil, append(c.rawTail, raw[:n]...))
}

// readFrames hands frames over until the handler says errDone.
func (c *client) readFrames(handle frameHandler) error {
	plain := c.tail
	c.tail = nil
	for {
		err := c.frames(plain, handle)
		if err == errDone {
			return nil
		}
		if err != nil {
			return err
		}
		more, err := c.readPlain()
		if err != nil {
			return err
		}
		if c.deframe != nil {
			if more, err = c.unwrap(nil, more); err != nil {
				return err
			}
		}
		plain = append(c.tail, more...)
	}
}

// decrypt appends the plaintext of all whole records in raw to dst and keeps the rest.
func (c *client) decrypt(dst, raw []byte) ([]byte, error) {
	if c.in == nil {
		c.rawTail = c.rawTail[:0]
		return append(dst, raw...), nil
	}
	for {
		size := recordSize(raw)
		if size == 0 || size > len(raw) {
			break
		}
		var err error
		if dst, err = c.in.open(dst, raw[:size]); err != nil {
			return dst, err
		}
		raw = raw[size:]
	}
	c.rawTail = append(c.rawTail[:0], raw...)
	return dst, nil
}

// unwrap appends what websocket frames hold to dst and keeps an incomplete header.
func (c *client) unwrap(dst, data []byte) ([]byte, error) {
	if len(c.frameTail) > 0 {
		data = append(append([]byte(nil), c.frameTail...), data...)
	}
	dst, rest, err := c.deframe.feed(dst, data)
	c.frameTail = append(c.frameTail[:0], rest...)
	return dst, err
}

// frames hands over the whole frames in plain, and keeps what is behind the last one handed over.
func (c *client) frames(plain []byte, handle frameHandler) error {
	var err error
	for err == nil && len(plain) >= frameHeader {
		size := frameHeader + int(binary.BigEndian.Uint32(plain[1:]))
		if size > maxPacket+overhead {
			return fmt.Errorf("frame %#x of %d bytes", plain[0], size)
		}
		if size > len(plain) {
			break
		}
		err = handle(plain[0], plain[frameHeader:size])
		plain = plain[size:]
	}
	c.tail = append(c.tail[:0], plain...)
	return err
}

// detach takes the socket away from Go's runtime, for a loop to poll.
func (c *client) detach() error {
	raw, err := c.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		dup, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
		if errno != 0 {
			failure = errno
			return
		}
		c.fd = int(dup)
	})
	if err = errors.Join(err, failure); err != nil {
		return err
	}
	c.conn.Close()
	c.conn = nil
	return nil
}

// goodbye closes a connection that was not detached as TLS wants it.
func (c *client) goodbye() {
	if c.out != nil {
		alert := append(make([]byte, recordHeader, 64), 1, 0) // close_notify
		_, _ = c.conn.Write(c.out.sealAs(typeAlert, alert, 0))
	}
	c.close()
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
	if c.fd >= 0 {
		syscall.Close(c.fd)
	}
	c.conn, c.fd = nil, -1
}

// appendFrames appends n packets of a flow as the wire has them, pack frames to a record.
func (c *client) appendFrames(buf []byte, f *flow, n, pack int, now int64) []byte {
	size := overhead + f.size
	if size > maxPlaintext || c.deframe != nil {
		return c.appendOther(buf, f, n, now)
	}
	pack = max(1, min(pack, maxPlaintext/size))
	for n > 0 {
		start := len(buf)
		if c.out != nil {
			buf = buf[:start+recordHeader]
		}
		for range min(pack, n) {
			buf = f.appendFrame(buf, now)
			n--
		}
		if c.out != nil {
			buf = c.out.seal(buf, start)
		}
	}
	return buf
}

// appendOther is appendFrames for frames larger than a record, and for websockets.
func (c *client) appendOther(buf []byte, f *flow, n int, now int64) []byte {
	if c.sealing == nil {
		c.sealing = make([]byte, 0, 2*(overhead+maxPacket)+64)
	}
	for range n {
		whole := f.appendFrame(c.sealing[:0], now)
		c.sealing = whole
		if c.deframe != nil {
			whole = appendMessage(whole[len(whole):], whole)
		}
		if c.out == nil {
			buf = append(buf, whole...)
			continue
		}
		for len(whole) > 0 {
			start, part := len(buf), min(len(whole), maxPlaintext)
			buf = append(buf[:start+recordHeader], whole[:part]...)
			buf = c.out.seal(buf, start)
			whole = whole[part:]
		}
	}
	return buf
}

// appendControl appends a small frame.
func (c *client) appendControl(buf []byte, kind byte, body []byte) []byte {
	frame := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))
	frame = append(frame, body...)
	if c.deframe != nil {
		frame = appendMessage(nil, frame)
	}
	if c.out == nil {
		return append(buf, frame...)
	}
	start := len(buf)
	return c.out.seal(append(buf[:start+recordHeader], frame...), start)
}
