package config

import "strings"

// Nearest is the candidate that name is probably a misspelling of, or "".
func Nearest(name string, candidates []string) string { return nearest(name, candidates) }

// nearest returns the candidate that name is probably a misspelling of, or "".
func nearest(name string, candidates []string) string {
	best, at := "", allowedSlips(name)+1
	for _, c := range candidates {
		if abs(len(c)-len(name)) >= at {
			continue
		}
		if d := slips(name, c); d < at {
			best, at = c, d
		}
	}
	return best
}

// onlyWith returns the only candidate that begins as name does, or "".
func onlyWith(name string, candidates []string) (only string) {
	for _, c := range candidates {
		if name == "" || !strings.HasPrefix(c, name) {
			continue
		}
		if only != "" {
			return ""
		}
		only = c
	}
	return only
}

// allowedSlips is how far off a word may be: short words are near everything.
func allowedSlips(name string) int {
	switch {
	case len(name) < 3:
		return 0
	case len(name) < 5:
		return 1
	}
	return 2
}

// slips counts the letters inserted, left out, replaced or swapped with their
// neighbour that lead from a to b; case and the choice of - or _ do not count.
func slips(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			differs := 1
			if fold(a[i]) == fold(b[j]) {
				differs = 0
			}
			next[j+1] = min(row[j]+differs, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && fold(a[i]) == fold(b[j-1]) && fold(a[i-1]) == fold(b[j]) {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}

func fold(c byte) byte {
	switch {
	case c == '-':
		return '_'
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}

func abs(n int) int { return max(n, -n) }
