package admit

import (
	"superd/superd/internal/config"
)

// A Rule lets somebody in or keeps him out, and says what else is different
// for him.
type Rule struct {
	Spec          config.Spec
	Deny          bool
	Text          string          // as the file has it; "" for the canonical form
	At            config.Position // where; the zero Position if nowhere
	MaxPerSource  int             // instead of the service's; 0 for none of its own
	RatePerSource config.Rate     // instead of the service's; the zero Rate for none of its own
	Data          any             // what else the rule carries: env, run; not looked at
}

// String is the rule in words: deny 10.0.0.0/8 (FILE:LINE:COLUMN).
func (r *Rule) String() string {
	if r.At.File == "" {
		return r.Words()
	}
	return r.Words() + " (" + r.At.String() + ")"
}

// Words is the rule without its place: deny 10.0.0.0/8.
func (r *Rule) Words() string {
	text := r.Text
	if text == "" {
		text = r.Spec.String()
	}
	if r.Deny {
		return "deny " + text
	}
	return "allow " + text
}
