package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// openTun makes a TUN device in a network namespace, and returns a descriptor that does not block.
// The device is gone when the descriptor is.
//
// Packets are handed over one by one, without offloads: the kernel cuts what its TCP hands down in
// one piece, so that each packet is delayed, counted and lost by itself.
func openTun(namespace, name string) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		// The thread goes into the namespace and never comes back: it ends with the goroutine.
		runtime.LockOSThread()
		fd, err := openTunHere(namespace, name)
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}

func openTunHere(namespace, name string) (int, error) {
	space, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", namespace, err)
	}
	defer unix.Close(space)
	if err := unix.Setns(space, unix.CLONE_NEWNET); err != nil {
		return -1, fmt.Errorf("setns %s: %w", namespace, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("TUNSETIFF %s: %w", name, err)
	}
	return fd, nil
}
