// Latencies, counted in buckets that are 1.6 % wide.

package main

import "math/bits"

const subBuckets = 64

type histogram struct {
	counts [64 * subBuckets]uint64
	total  uint64
	max    int64
}

func (h *histogram) add(nanoseconds int64) {
	n := uint64(max(nanoseconds, 0))
	index := n
	if shift := bits.Len64(n) - 7; shift > 0 {
		index = uint64(shift)*subBuckets + n>>shift
	}
	h.counts[index]++
	h.total++
	h.max = max(h.max, nanoseconds)
}

// quantile returns nanoseconds; 0 without any value.
func (h *histogram) quantile(q float64) float64 {
	if h.total == 0 {
		return 0
	}
	left := uint64(q * float64(h.total-1))
	for index, count := range h.counts {
		if left < count {
			if index < 2*subBuckets {
				return float64(index)
			}
			shift := index/subBuckets - 1
			return (float64(index%subBuckets+subBuckets) + 0.5) * float64(uint64(1)<<shift)
		}
		left -= count
	}
	return float64(h.max)
}

// latency is a histogram as results show it, in microseconds.
type latency struct {
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
	Count uint64  `json:"count"`
}

func (h *histogram) summary() *latency {
	if h.total == 0 {
		return nil
	}
	return &latency{h.quantile(0.5) / 1e3, h.quantile(0.99) / 1e3, h.quantile(0.999) / 1e3, float64(h.max) / 1e3, h.total}
}
