package main

import (
	"testing"

	"superd/superd/internal/admit"
	"superd/superd/internal/event"
)

// TestReasonsAreOneList: admit decides and event records, and neither may know
// the other, so the words stand twice and must be the same, in the same order.
func TestReasonsAreOneList(t *testing.T) {
	list := event.Reasons()
	for i, r := range list {
		if got := admit.Reason(i).String(); got != r.String() {
			t.Errorf("reason %d is %q where it is decided and %q in the log", i, got, r)
		}
	}
	beyond := admit.Reason(len(list)).String()
	if beyond != event.Reason(len(list)).String() {
		t.Errorf("admit has the reason %q beyond the log's list", beyond)
	}
}
