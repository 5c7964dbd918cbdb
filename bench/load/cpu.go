// CPU time and memory of the server: its process (two of a mesh), all threads, all descendants.

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// tree returns processes and all of their descendants.
func tree(roots ...int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		fields := statFields(path)
		if fields == nil {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		children[parent] = append(children[parent], pid)
	}
	found := slices.Clone(roots)
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}

// statFields returns the fields of /proc/PID/stat behind the command: state, ppid, ...
func statFields(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
}

// cpuSeconds returns the CPU time that a process tree has used. It is the sum that the kernel
// shows in /proc/PID/stat as utime and stime, but read from the process's CPU clock: that counts
// nanoseconds, not ticks. Children that have ended are counted from their parent's stat.
func cpuSeconds(pids []int) float64 {
	total := 0.0
	for _, pid := range pids {
		clock := int32(^pid)<<3 | 2 // CPUCLOCK_SCHED, of the process
		var spec syscall.Timespec
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&spec)), 0); errno == 0 {
			total += float64(spec.Nano()) / 1e9
		}
		if fields := statFields(fmt.Sprintf("/proc/%d/stat", pid)); fields != nil {
			for _, field := range fields[13:15] { // cutime, cstime
				ticks, _ := strconv.Atoi(field)
				total += float64(ticks) / 100
			}
		}
	}
	return total
}

// memory returns the proportional and the resident set of a process tree, in bytes.
func memory(pids []int) (pss, rss int64) {
	for _, pid := range pids {
		file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 2 {
				continue
			}
			kilobytes, _ := strconv.ParseInt(fields[1], 10, 64)
			switch fields[0] {
			case "Pss:":
				pss += kilobytes << 10
			case "Rss:":
				rss += kilobytes << 10
			}
		}
		file.Close()
	}
	return pss, rss
}

// coreSeconds returns for how long a core has been in use by whatever, or taken by a hypervisor;
// the kernel counts it in ticks.
func coreSeconds(core int) float64 {
	data, _ := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != fmt.Sprintf("cpu%d", core) {
			continue
		}
		total := 0
		for _, place := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal
			ticks, _ := strconv.Atoi(fields[place])
			total += ticks
		}
		return float64(total) / 100
	}
	return 0
}

// usage is what has been used of both cores up to a moment, or between two, in seconds.
type usage struct {
	seconds                float64
	server, client         float64 // by the relay and by this process
	serverCore, clientCore float64 // by everybody
}

func (o *options) usage(pids []int) usage {
	return usage{
		seconds:    float64(nanotime()) / 1e9,
		server:     cpuSeconds(pids),
		client:     cpuSeconds([]int{os.Getpid()}),
		serverCore: coreSeconds(o.serverCore),
		clientCore: coreSeconds(o.clientCore),
	}
}

func (u usage) minus(o usage) usage {
	return usage{
		max(u.seconds-o.seconds, 1e-6), u.server - o.server, u.client - o.client,
		u.serverCore - o.serverCore, u.clientCore - o.clientCore,
	}
}

// others returns which share of the busier of both cores was used by other processes; where relay
// and client share the cores, of one that is as busy as both. Three ticks of a core are not held
// against anybody: the kernel counts no closer.
func (u usage) others(shared bool) float64 {
	if shared {
		return max(0, u.serverCore+u.clientCore-u.server-u.client-0.06) / u.seconds
	}
	return max(0, u.serverCore-u.server-0.03, u.clientCore-u.client-0.03) / u.seconds
}
