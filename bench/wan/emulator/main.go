// Program emulator joins network namespaces by wide-area links: each a pair of TUN devices between
// which this process carries the packets, with a delay, a rate, a drop-tail buffer and random loss
// in each direction. It is for kernels without netem.
//
// Its one argument is a Network as JSON. It prints "ready" when the devices are there, and ends when
// its standard input does, having printed what became of the packets, as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Network is what the emulator is told to make.
type Network struct {
	Seed   uint64
	Cables []Cable
}

// Cable has two ends, and a path each way: There is from the first end to the second.
type Cable struct {
	Ends        [2]End
	There, Back Path
}

// End is a TUN device in a network namespace, the latter named by its file.
type End struct {
	Namespace, Device string
}

// Report is what is printed at the end, for each cable in turn.
type Report struct {
	There, Back Counts
	// Refused are packets that the kernel did not take at the far end.
	Refused int64
}

// direction carries packets from one device to another.
type direction struct {
	*Link
	from, to int
	refused  int64
}

const (
	packetSize = 2048
	// turn is how many packets one device may hand in before others have their turn.
	turn = 64
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: emulator NETWORK, as JSON"))
	}
	var network Network
	if err := json.Unmarshal([]byte(os.Args[1]), &network); err != nil {
		fail(err)
	}
	var directions []*direction
	for _, cable := range network.Cables {
		var devices [2]int
		for i, end := range cable.Ends {
			fd, err := openTun(end.Namespace, end.Device)
			if err != nil {
				fail(err)
			}
			devices[i] = fd
		}
		for i, path := range []Path{cable.There, cable.Back} {
			link := NewLink(path, network.Seed, uint64(len(directions)))
			directions = append(directions, &direction{Link: link, from: devices[i], to: devices[1-i]})
		}
	}
	fmt.Println("ready")
	if err := carry(directions); err != nil {
		fail(err)
	}
	var reports []Report
	for i := 0; i < len(directions); i += 2 {
		there, back := directions[i], directions[i+1]
		reports = append(reports, Report{there.Counts, back.Counts, there.refused + back.refused})
	}
	if err := json.NewEncoder(os.Stdout).Encode(reports); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "emulator:", err)
	os.Exit(1)
}

// carry goes on until standard input ends.
func carry(directions []*direction) error {
	waits := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	for _, d := range directions {
		waits = append(waits, unix.PollFd{Fd: int32(d.from), Events: unix.POLLIN})
	}
	var spare [][]byte
	input := make([]byte, 512)
	for {
		for i, d := range directions {
			if waits[i+1].Revents == 0 {
				continue
			}
			for range turn {
				if len(spare) == 0 {
					spare = append(spare, make([]byte, packetSize))
				}
				buffer := spare[len(spare)-1]
				n, err := unix.Read(d.from, buffer[:packetSize])
				if err == unix.EAGAIN || err == unix.EINTR || err == unix.EIO {
					// EIO is a device that is not up yet.
					break
				}
				if err != nil {
					return fmt.Errorf("read: %w", err)
				}
				if d.Send(now(), buffer[:n]) {
					spare = spare[:len(spare)-1]
				}
			}
		}
		timeout := deliver(directions, &spare)
		if _, err := unix.Ppoll(waits, timeout, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("ppoll: %w", err)
		}
		if waits[0].Revents != 0 {
			if n, err := unix.Read(0, input); n == 0 && err == nil {
				return nil
			}
		}
	}
}

// deliver hands over what has arrived, and says how long it is until the next packet does; nil if
// none is under way.
func deliver(directions []*direction, spare *[][]byte) *unix.Timespec {
	next, any := int64(0), false
	for _, d := range directions {
		for {
			packet := d.Take(now())
			if packet == nil {
				break
			}
			if _, err := unix.Write(d.to, packet); err != nil {
				d.refused++
			}
			*spare = append(*spare, packet[:packetSize])
		}
		if due, there := d.Due(); there && (!any || due < next) {
			next, any = due, true
		}
	}
	if !any {
		return nil
	}
	wait := unix.NsecToTimespec(max(0, next-now()))
	return &wait
}

var start = time.Now()

// now is read without a system call, unlike clock_gettime of package unix.
func now() int64 { return int64(time.Since(start)) }
