package main

import (
	"testing"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/event"
)

// TestReasonsAreOneList: admit decides and event records, and neither may know
// the other, so the words stand twice and must be the same, in the same order;
// and so they stand in the table of keys.
func TestReasonsAreOneList(t *testing.T) {
	list := event.Reasons()
	for i, r := range list {
		if got := admit.Reason(i).String(); got != r.String() {
			t.Errorf("reason %d is %q where it is decided and %q in the log", i, got, r)
		}
	}
	var words []string
	for _, r := range list {
		words = append(words, r.String())
	}
	for _, k := range config.Keys() {
		switch k.Path {
		case "services.*.refuse_text":
			compareLists(t, "keys of refuse_text", k.Words, words)
		case "services.*.ban.after", "services.*.failures.after":
			if k.Max != admit.MostCounted {
				t.Errorf("%s is %d at most, %d are counted", k.Path, k.Max, admit.MostCounted)
			}
		}
	}
	beyond := admit.Reason(len(list)).String()
	if beyond != event.Reason(len(list)).String() {
		t.Errorf("admit has the reason %q beyond the log's list", beyond)
	}
}
