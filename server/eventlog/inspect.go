package eventlog

import (
	"strings"
	"time"
)

// InspectBatch returns how many notifications a stored record batch has, for those who read files without opening the log; false if
// it is none.
func InspectBatch(data []byte) (notifications int, ok bool) {
	b := unpack(logID{}, 0, 1, time.Time{}, data)
	return len(b.records) - b.erased, !b.damaged
}

// IsItem reports whether a key of one of the tables quarantine, groups and parked is that of an entry, a group or a parked
// notification, and not of something that is stored about one.
func IsItem(table, key string) bool {
	return strings.HasPrefix(key, map[string]string{"quarantine": entryPrefix, "groups": recordPrefix, "parked": ""}[table])
}

// NameOf returns the name of a log by the id that its store gave it: what [Log.ID] returns.
func NameOf(storeID string) string { return shortID(storeID).String() }
