// Package disk keeps logs and tables as segment files in a directory of this machine.
//
// # Format
//
// Each log or table has a directory of its own. In it are a manifest, segments that are named after the first sequence they
// may hold, and at most one spare, a segment-to-be that is filled with zeros. Integers are little-endian.
//
//	segment: header (4 KiB) | header again (4 KiB) | entries ... | zeros, or index | summary | summary again
//	entry:   head | key | payload | padding | head again | key again | padding
//
// A segment is created with its whole size, in zeros that were written and synced, so that the sync of an entry need not wait
// for the file system's own journal. A sealed segment ends behind its entries: with an index (a sign, and about every 64 KiB: sequence,
// time, offset; for a table its keys too) and, twice, a summary that says where the index is and which entry is the last.
//
// Entries begin at multiples of 8. A head has a checksum of itself and its key, and one of the payload; both are CRC-32C that
// begin with the segment's random salt, so that no payload can pose as an entry. Everything that finds its way is there twice:
// a flipped byte in a head, a key, a header, a summary or the manifest costs nothing, and one in a payload costs that entry.
// A run of bytes that hits both heads costs that entry too: a reader looks for the next head that holds.
//
// # Writing
//
// One write and one fdatasync store one entry, or, in a table, the entries of all who wait. Nothing is rewritten in place and
// there is no repair step. When a write or a sync fails, what the device has is unknown: the engine has failed, for good.
//
// Each time a directory is opened, its first append begins a new segment with a new random epoch. What was not sealed by a clean
// shutdown is sealed then; nothing is ever appended to it.
//
// # What a crash leaves
//
// An entry proves that all before it were synced, so only the last write can be torn. A torn write is one that has, within its
// extent, the part of a 512-byte sector in zeros as they were before: it was never acknowledged, and is as if it had not been
// tried. If what does not hold at the end has no such part it was changed later, and is a gap. (An acknowledged entry that itself
// has 512 zeros in its payload, is the very last one before a crash, and is then corrupted, is taken for torn.)
//
// # The manifest
//
// It lists the segments with what is sealed in them, and the first sequence that is retained; it is replaced as a whole. With it,
// opening reads one segment whatever the size of the log, and a segment that is missing, or that lost its end, is a gap of
// the right size. Without it (or when a plain copy of the directory has an older one) the segments' own headers and summaries tell.
package disk
