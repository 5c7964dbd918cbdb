// The STUN load: binding requests as tailscaled sends them, answers checked.

package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	stunSockets = 16
	stunWindow  = 8 // requests under way on each
	stunSize    = 40
	stunCookie  = 0x2112a442
	stunPatient = int64(500 * time.Millisecond)
)

type mmsghdr struct {
	header syscall.Msghdr
	length uint32
	_      [4]byte
}

// stunSocket has stunWindow slots, each for one request under way.
type stunSocket struct {
	fd       int
	port     uint16
	sequence [stunWindow]uint32
	pending  [stunWindow]bool
	next     uint32
	heard    int64

	out   [stunWindow * stunSize]byte
	in    [stunWindow][128]byte
	inVec [stunWindow]syscall.Iovec
	inHdr [stunWindow]mmsghdr
}

func newStunSocket(address string) (*stunSocket, error) {
	server, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	to := syscall.SockaddrInet4{Port: server.Port, Addr: [4]byte(server.IP.To4())}
	if err := syscall.Connect(fd, &to); err != nil {
		return nil, err
	}
	// One write becomes datagrams of this size (Linux 4.18), which is cheaper than a write each.
	if err := syscall.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, stunSize); err != nil {
		return nil, err
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	s := &stunSocket{fd: fd, port: uint16(name.(*syscall.SockaddrInet4).Port)}
	for i := range stunWindow {
		s.inVec[i].Base = &s.in[i][0]
		s.inVec[i].Len = uint64(len(s.in[i]))
		s.inHdr[i].header.Iov = &s.inVec[i]
		s.inHdr[i].header.Iovlen = 1
	}
	return s, nil
}

// request writes a binding request with SOFTWARE and FINGERPRINT (RFC 8489 sections 5 and 14).
func request(buf []byte, port uint16, slot, sequence uint32) {
	binary.BigEndian.PutUint32(buf[0:], 1<<16|20)
	binary.BigEndian.PutUint32(buf[4:], stunCookie)
	binary.BigEndian.PutUint32(buf[8:], uint32(port))
	binary.BigEndian.PutUint32(buf[12:], slot)
	binary.BigEndian.PutUint32(buf[16:], sequence)
	binary.BigEndian.PutUint32(buf[20:], 0x8022<<16|8)
	copy(buf[24:], "tailnode")
	binary.BigEndian.PutUint32(buf[32:], 0x8028<<16|4)
	binary.BigEndian.PutUint32(buf[36:], crc32.ChecksumIEEE(buf[:32])^0x5354554e)
}

// fill sends a request from each of the first n slots that have none under way.
func (s *stunSocket) fill(n int, now int64) {
	count := 0
	for slot := range n {
		if s.pending[slot] {
			continue
		}
		s.pending[slot], s.sequence[slot] = true, s.next
		request(s.out[count*stunSize:], s.port, uint32(slot), s.next)
		s.next++
		count++
	}
	if count > 0 {
		s.heard = now
		_, _ = syscall.Write(s.fd, s.out[:count*stunSize])
	}
}

// take reads answers and returns how many were right.
func (s *stunSocket) take() (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.inHdr)), stunWindow, syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		if errno == syscall.EAGAIN || errno == syscall.EINTR {
			return 0, nil
		}
		return 0, errno
	}
	for i := range int(n) {
		if err := s.check(s.in[i][:s.inHdr[i].length]); err != nil {
			return i, err
		}
	}
	return int(n), nil
}

func (s *stunSocket) check(answer []byte) error {
	if len(answer) < 20 || binary.BigEndian.Uint32(answer) != uint32(0x0101<<16|(len(answer)-20)) ||
		binary.BigEndian.Uint32(answer[4:]) != stunCookie || binary.BigEndian.Uint32(answer[8:]) != uint32(s.port) {
		return fmt.Errorf("STUN: not an answer: % x", answer)
	}
	slot, sequence := binary.BigEndian.Uint32(answer[12:]), binary.BigEndian.Uint32(answer[16:])
	if slot >= stunWindow || !s.pending[slot] || s.sequence[slot] != sequence {
		return fmt.Errorf("STUN: an answer to request %d of slot %d, which is not under way", sequence, slot)
	}
	s.pending[slot] = false
	for rest := answer[20:]; len(rest) >= 4; {
		kind, length := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if kind == 0x0020 && length == 8 && len(rest) >= 12 {
			port := binary.BigEndian.Uint16(rest[6:]) ^ stunCookie>>16
			host := binary.BigEndian.Uint32(rest[8:]) ^ stunCookie
			if rest[5] != 1 || port != s.port || host != 127<<24|1 {
				return fmt.Errorf("STUN: told %08x:%d, is 127.0.0.1:%d", host, port, s.port)
			}
			return nil
		}
		rest = rest[min(len(rest), 4+(length+3)&^3):]
	}
	return fmt.Errorf("STUN: no XOR-MAPPED-ADDRESS in % x", answer)
}

// loadSTUN keeps 128 requests under way from 16 sockets; with -rate, it sends that many a second,
// one at a time.
func loadSTUN(o *options) (*result, error) {
	pids := tree(o.pids...)
	sockets := make([]*stunSocket, stunSockets)
	for i := range sockets {
		var err error
		if sockets[i], err = newStunSocket(o.stun); err != nil {
			return nil, err
		}
		defer syscall.Close(sockets[i].fd)
	}
	var answers, lost uint64
	var idle int64
	times := &histogram{}
	turn := 0
	due := float64(nanotime())
	run := func(duration time.Duration) error {
		now := nanotime()
		for end := now + int64(duration); now < end; {
			worked := false
			for _, s := range sockets {
				n, err := s.take()
				if err != nil {
					return err
				}
				answers += uint64(n)
				if worked = worked || n > 0; n > 0 && o.steady {
					times.add(nanotime() - s.heard)
				}
				if now-s.heard > stunPatient && s.heard > 0 {
					for slot, pending := range s.pending {
						if pending {
							s.pending[slot] = false
							lost++
						}
					}
				}
				if !o.steady {
					s.fill(stunWindow, now)
				}
			}
			if o.steady && float64(now) >= due {
				due = max(due+1e9/o.rate, float64(now)-1e6)
				sockets[turn%stunSockets].fill(1, now)
				turn++
				worked = true
			}
			after := nanotime()
			if !worked {
				idle += after - now
			}
			now = after
		}
		return nil
	}
	if err := run(o.warmup); err != nil {
		return nil, err
	}
	answers, lost, idle = 0, 0, 0
	used := o.usage(pids)
	if err := run(o.seconds); err != nil {
		return nil, err
	}
	used = o.usage(pids).minus(used)
	r := newResult(o, used, answers)
	r.ClientBusy = 1 - float64(idle)/1e9/used.seconds
	r.Lost = lost
	r.LostShare = float64(lost) / float64(max(1, answers+lost))
	r.Latency = times.summary()
	return r, nil
}
