package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// socketNames are those that a service manager gives the sockets that it hands over, as FileDescriptorName in systemd.
var socketNames = []string{"webhook", "grpc", "rest", "admin"}

// handedOver returns the sockets that a service manager listens on for this process (LISTEN_FDS, see sd_listen_fds(3)), by name. While no
// process accepts from them, connections wait in the kernel.
func handedOver() (map[string]net.Listener, error) {
	all, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take over the sockets of the service manager: %w", err)
	}
	sockets := make(map[string]net.Listener, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch given := all[name]; {
		case !slices.Contains(socketNames, name):
			return nil, usagef("the service manager hands over a socket named %q: name it one of %s (FileDescriptorName)", name, strings.Join(socketNames, ", "))
		case len(given) > 1:
			return nil, usagef("the service manager hands over %d sockets named %s: one is possible", len(given), name)
		case given[0] == nil:
			return nil, usagef("what the service manager hands over as %s is not a listening stream socket", name)
		default:
			sockets[name] = given[0]
		}
	}
	_ = os.Unsetenv("LISTEN_FDNAMES") // children are not meant
	return sockets, nil
}
