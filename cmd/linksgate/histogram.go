package main

import (
	"math/bits"
	"time"
)

// fineBits is how finely a histogram tells durations apart: those that differ by
// less than one part in 2^fineBits may share a bucket.
const fineBits = 6

// histogram counts durations in a fixed space, however many there are. The
// zero histogram is empty.
type histogram struct {
	count   uint64
	max     time.Duration
	buckets [(64 - fineBits) << fineBits]uint64
}

func (h *histogram) record(d time.Duration) {
	d = max(d, 0)
	h.count++
	h.max = max(h.max, d)
	h.buckets[bucket(uint64(d))]++
}

func (h *histogram) merge(other *histogram) {
	h.count += other.count
	h.max = max(h.max, other.max)
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
}

// quantile returns a duration that the fraction q of all do not exceed, at most
// one part in 2^fineBits too long; 0 when there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.count))
	seen := uint64(0)
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return min(time.Duration(bucketEnd(i)), h.max)
		}
	}
	return 0
}

// bucket numbers: the values below 2^fineBits have one each; above, each power of
// two has 2^fineBits.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-fineBits-1, 0)
	return shift<<fineBits + int(v>>shift)
}

// bucketEnd is the greatest value in bucket i.
func bucketEnd(i int) uint64 {
	shift := max(i>>fineBits-1, 0)
	return uint64(i-shift<<fineBits+1)<<shift - 1
}
