package migrate

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

var errAmount = errors.New("it is no number of bytes")

// parseBytes reads a number of bytes, with a letter for a power of 1024.
func parseBytes(text string) (uint64, error) {
	shift := 0
	if text != "" {
		if i := strings.IndexByte("KMGTPE", text[len(text)-1]&^0x20); i >= 0 {
			text, shift = text[:len(text)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, errAmount
	}
	return n << shift, nil
}
