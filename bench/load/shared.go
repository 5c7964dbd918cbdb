// Loads for a relay that has both cores, which this program then shares with it: how much passes
// through a machine, whatever number of processes the relay is.
//
// A client that spins would take from the relay what it has no use for. This one sleeps between two
// turns, and then reads and sends what has come to be: it takes the CPU time that the load takes,
// and the results say how much. What is under way has to be enough to keep the relay busy meanwhile.
//
// Where a relay is several processes, the kernel deals each the connections that it serves, at
// random. What a deal is like decides on how much passes; so there are several in one load.

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const napTime = 100 * time.Microsecond

// sleep keeps Go's scheduler out of it: that would look for other work first.
func sleep(duration time.Duration) {
	spec := syscall.NsecToTimespec(int64(duration))
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&spec)), 0, 0)
}

// sharing returns how relay and client have shared the cores, the relay's memory, and which of its
// processes serve whom: how many do, and between how many of the pairs there are two of them.
func sharing(l *loop, pids []int, used usage) map[string]float64 {
	pss, rss := memory(pids)
	owners := socketOwners(pids)
	serving, across := map[int]int{}, 0
	for _, f := range l.flows {
		from, to := owners[connectionOf(f.src.fd)], owners[connectionOf(f.dst.fd)]
		if from == 0 || to == 0 {
			l.fail("no process of the server has the connections of flow %d", f.id)
			continue
		}
		serving[from]++
		serving[to]++
		if from != to {
			across++
		}
	}
	return map[string]float64{
		"across":       float64(across),
		"serving":      float64(len(serving)),
		"relay_cores":  used.server / used.seconds,
		"client_cores": used.client / used.seconds,
		"pss":          float64(pss),
		"rss":          float64(rss),
		"processes":    float64(len(pids)),
	}
}

// connection is one by IPv4, as /proc/net/tcp shows it from the server's side: its address and the
// client's.
type connection struct{ server, client string }

// connectionOf returns that of a client's socket.
func connectionOf(fd int) connection {
	own, err := syscall.Getsockname(fd)
	if err != nil {
		return connection{}
	}
	peer, err := syscall.Getpeername(fd)
	if err != nil {
		return connection{}
	}
	return connection{inProc(peer), inProc(own)}
}

// inProc writes an address as /proc/net/tcp has it: both numbers in hex, the first as it is in
// memory, read as a little-endian one.
func inProc(address syscall.Sockaddr) string {
	inet, ok := address.(*syscall.SockaddrInet4)
	if !ok {
		return ""
	}
	a := inet.Addr
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", a[3], a[2], a[1], a[0], inet.Port)
}

// socketOwners returns, for each connection of some processes, which of them has it.
func socketOwners(pids []int) map[connection]int {
	holders := map[string]int{}
	for _, pid := range pids {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if what, err := os.Readlink(link); err == nil {
				holders[what] = pid
			}
		}
	}
	owners := map[connection]int{}
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return owners
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // number, own address, peer's, …, inode
		if len(fields) < 10 {
			continue
		}
		if inode, err := strconv.Atoi(fields[9]); err == nil {
			if pid := holders[fmt.Sprintf("socket:[%d]", inode)]; pid != 0 {
				owners[connection{fields[1], fields[2]}] = pid
			}
		}
	}
	return owners
}

// deal runs a load -deals times, each with connections of its own and its part of -seconds, and
// returns the means; what was lost, and what went wrong, is that of all.
func deal(o *options, load func(*options) (*result, error)) (*result, error) {
	part := *o
	part.deals, part.seconds = 1, o.seconds/time.Duration(o.deals)
	var parts []*result
	for range o.deals {
		r, err := load(&part)
		if err != nil {
			return nil, err
		}
		parts = append(parts, r)
		if len(r.Errors) > 0 {
			break
		}
	}
	return together(parts), nil
}

// together adds up counts and times, and makes shares of the sums. Latency is left out: medians
// can't be added.
func together(parts []*result) *result {
	sum := &result{Load: parts[0].Load, Notes: map[string]int{}}
	var server, client, others float64
	extra := map[string]float64{}
	for _, r := range parts {
		sum.Seconds += r.Seconds
		sum.Sent += r.Sent
		sum.Received += r.Received
		sum.Lost += r.Lost
		sum.AllSent += r.AllSent
		sum.AllReceived += r.AllReceived
		server += r.ServerCPU * r.Seconds
		client += r.ClientBusy * r.Seconds
		others += r.Others * r.Seconds
		for name, value := range r.Extra {
			extra[name] += value / float64(len(parts))
		}
		for note, count := range r.Notes {
			sum.Notes[note] += count
		}
		sum.Errors = append(sum.Errors, r.Errors...)
	}
	sum.Rate, sum.Offered = float64(sum.Received)/sum.Seconds, float64(sum.Sent)/sum.Seconds
	sum.LostShare = float64(sum.Lost) / float64(max(1, sum.AllSent))
	sum.ServerCPU, sum.ClientBusy, sum.Others = server/sum.Seconds, client/sum.Seconds, others/sum.Seconds
	sum.CPUEach = server / float64(max(1, sum.Received)) * 1e6
	sum.Extra = extra
	return sum
}
