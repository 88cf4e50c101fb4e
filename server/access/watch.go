package access

import (
	"context"
	"time"
)

// watch is an open stream, whose caller may lose rights.
type watch struct {
	control *Control
	caller  *Caller
	shown   Credentials
	changed func()
}

// Watch calls changed, once or more, when the caller of a stream is not who it was when it was authenticated: its credential ended or
// was taken away, or its rights were changed, to more or to less. The function that it returns ends that.
func (c *Control) Watch(caller *Caller, shown Credentials, changed func()) (stop func()) {
	if caller.policy == nil { // another gateway watches
		return func() {}
	}
	w := &watch{control: c, caller: caller, shown: shown, changed: changed}
	c.mu.Lock()
	c.watches[w] = struct{}{}
	c.mu.Unlock()
	if c.policy.Load() != caller.policy { // it was changed meanwhile
		w.check()
	}
	var ends *time.Timer
	if !caller.Expires.IsZero() {
		ends = time.AfterFunc(time.Until(caller.Expires), changed)
	}
	return func() {
		if ends != nil {
			ends.Stop()
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watches, w)
	}
}

// check asks about the caller again.
func (w *watch) check() {
	again, err := w.control.identify(context.Background(), w.shown)
	if err != nil || !w.caller.same(again) {
		w.changed()
	}
}

func checkAll(watches []*watch) {
	for _, w := range watches {
		w.check()
	}
}
