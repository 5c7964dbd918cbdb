// The record layer of TLS 1.3 (RFC 8446 section 5), taken over from crypto/tls after the handshake.
//
// crypto/tls shakes hands; then its traffic secrets, which it hands out for key logs, are put to
// use here. That saves its locks, buffers and one system call a record, so that a client can send
// what real clients send, one record a packet, at many times the rate. On the wire it is the same.

package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"slices"
	"strings"
)

const (
	recordHeader  = 5
	recordTag     = 16
	maxPlaintext  = 16 << 10
	maxRecordSize = recordHeader + maxPlaintext + 256

	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23

	newSessionTicket = 4
	keyUpdate        = 24
)

// direction is one direction of a connection: a key, and a nonce that counts.
type direction struct {
	suite    uint16
	secret   []byte
	aead     cipher.AEAD
	iv       [12]byte
	nonce    [12]byte
	sequence uint64
}

func newDirection(suite uint16, secret []byte) (*direction, error) {
	newHash, keyLength, err := suiteOf(suite)
	if err != nil {
		return nil, err
	}
	key, err := expandLabel(newHash, secret, "key", keyLength)
	if err != nil {
		return nil, err
	}
	iv, err := expandLabel(newHash, secret, "iv", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	d := &direction{suite: suite, secret: secret, aead: aead}
	copy(d.iv[:], iv)
	return d, nil
}

// suiteOf returns the hash of a cipher suite and the length of its keys.
func suiteOf(suite uint16) (func() hash.Hash, int, error) {
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
		return sha256.New, 16, nil
	case tls.TLS_AES_256_GCM_SHA384:
		return sha512.New384, 32, nil
	}
	return nil, 0, fmt.Errorf("the server chose %s; this client wants AES-GCM", tls.CipherSuiteName(suite))
}

// expandLabel is HKDF-Expand-Label (RFC 8446 section 7.1) without a context.
func expandLabel(newHash func() hash.Hash, secret []byte, label string, length int) ([]byte, error) {
	label = "tls13 " + label
	info := string([]byte{byte(length >> 8), byte(length), byte(len(label))}) + label + "\x00"
	return hkdf.Expand(newHash, secret, info, length)
}

// appendKeyUpdate appends a KeyUpdate (RFC 8446 section 4.6.3) that asks the peer for one, or not,
// and goes on with the next key.
func (d *direction) appendKeyUpdate(buf []byte, asks byte) ([]byte, error) {
	buf = d.appendRecord(buf, typeHandshake, []byte{keyUpdate, 0, 0, 1, asks})
	newHash, _, err := suiteOf(d.suite)
	if err != nil {
		return nil, err
	}
	secret, err := expandLabel(newHash, d.secret, "traffic upd", newHash().Size())
	if err != nil {
		return nil, err
	}
	next, err := newDirection(d.suite, secret)
	if err != nil {
		return nil, err
	}
	*d = *next
	return buf, nil
}

func (d *direction) nextNonce() []byte {
	d.nonce = d.iv
	tail := d.nonce[4:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^d.sequence)
	return d.nonce[:]
}

// seal encrypts buf[start+recordHeader:] in place and writes the record's header at start.
// buf needs room for recordTag+1 bytes more.
func (d *direction) seal(buf []byte, start int) []byte {
	return d.sealAs(typeApplication, buf, start)
}

func (d *direction) sealAs(kind byte, buf []byte, start int) []byte {
	buf = append(buf, kind)
	content := start + recordHeader
	length := len(buf) - content + recordTag
	buf[start], buf[start+1], buf[start+2] = typeApplication, 3, 3
	buf[start+3], buf[start+4] = byte(length>>8), byte(length)
	d.aead.Seal(buf[content:content], d.nextNonce(), buf[content:], buf[start:content])
	d.sequence++
	return buf[:content+length]
}

// appendRecord appends a record, wherever that has room.
func (d *direction) appendRecord(buf []byte, kind byte, content []byte) []byte {
	start := len(buf)
	buf = slices.Grow(buf, recordHeader+len(content)+recordTag+1)
	return d.sealAs(kind, append(buf[:start+recordHeader], content...), start)
}

// open appends the plaintext of one record to dst; io.EOF is the peer's goodbye.
func (d *direction) open(dst, record []byte) ([]byte, error) {
	start := len(dst)
	dst, err := d.aead.Open(dst, d.nextNonce(), record[recordHeader:], record[:recordHeader])
	if err != nil {
		return dst, fmt.Errorf("TLS record %d: %w", d.sequence, err)
	}
	d.sequence++
	end := len(dst) - 1
	for end >= start && dst[end] == 0 {
		end--
	}
	if end < start {
		return dst, errors.New("TLS record without a type")
	}
	content := dst[start:end]
	switch dst[end] {
	case typeApplication:
		return dst[:end], nil
	case typeHandshake:
		if len(content) > 0 && content[0] == newSessionTicket {
			return dst[:start], nil
		}
		return dst, fmt.Errorf("TLS handshake message % x after the handshake", content[:min(4, len(content))])
	case typeAlert:
		if bytes.Equal(content, []byte{1, 0}) {
			return dst[:start], io.EOF
		}
		return dst, fmt.Errorf("TLS alert % x", content)
	}
	return dst, fmt.Errorf("TLS record of type %d", dst[end])
}

// recorder keeps what crypto/tls reads: some of it may belong to us.
type recorder struct {
	net.Conn
	read []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.read = append(r.read, p[:n]...)
	return n, err
}

// takeOver returns both directions of an established connection, and the bytes that crypto/tls
// has read beyond the handshake.
func takeOver(conn *tls.Conn, seen *recorder, keyLog string, server bool) (in, out *direction, rest []byte, err error) {
	state := conn.ConnectionState()
	if state.Version != tls.VersionTLS13 {
		return nil, nil, nil, fmt.Errorf("the server speaks %s; this client wants TLS 1.3", tls.VersionName(state.Version))
	}
	secrets := map[string][]byte{}
	for line := range strings.Lines(keyLog) {
		fields := strings.Fields(line)
		if len(fields) == 3 {
			secrets[fields[0]], _ = hex.DecodeString(fields[2])
		}
	}
	inSecret, outSecret := secrets["SERVER_TRAFFIC_SECRET_0"], secrets["CLIENT_TRAFFIC_SECRET_0"]
	if server {
		inSecret, outSecret = outSecret, inSecret
	}
	if in, err = newDirection(state.CipherSuite, inSecret); err != nil {
		return nil, nil, nil, err
	}
	if out, err = newDirection(state.CipherSuite, outSecret); err != nil {
		return nil, nil, nil, err
	}
	// The first record that the traffic key opens is the first that is ours.
	for data := seen.read; ; {
		size := recordSize(data)
		if size == 0 || size > len(data) {
			return in, out, data, nil
		}
		if data[0] == typeApplication {
			if _, err := in.aead.Open(nil, in.nextNonce(), data[recordHeader:size], data[:recordHeader]); err == nil {
				return in, out, data, nil
			}
		}
		data = data[size:]
	}
}

// recordSize returns the size of the record that data begins with; 0 where that is not known yet.
func recordSize(data []byte) int {
	if len(data) < recordHeader {
		return 0
	}
	return recordHeader + int(binary.BigEndian.Uint16(data[3:]))
}
