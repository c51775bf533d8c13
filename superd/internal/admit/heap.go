package admit

// A rank is a place in an order: by first, then by second, the least leads.
type rank struct{ first, second int64 }

func (a rank) before(b rank) bool {
	return a.first < b.first || a.first == b.first && a.second < b.second
}

// A heap holds things by rank. Each knows its spot in it, so that it can be
// moved or taken out in O(log n). Ranks stand in the list itself and a node
// has four children: a level is one line of cache.
type heap[T any] struct {
	list []ranked[T]
	spot func(T) *int32 // where a thing keeps its index + 1; 0 is outside
}

type ranked[T any] struct {
	rank rank
	what T
}

const children = 4

func (h *heap[T]) len() int       { return len(h.list) }
func (h *heap[T]) holds(x T) bool { return *h.spot(x) != 0 }
func (h *heap[T]) top() T         { return h.list[0].what }
func (h *heap[T]) topRank() rank  { return h.list[0].rank }

// set puts x in, or moves it to a new rank.
func (h *heap[T]) set(x T, r rank) {
	at := int(*h.spot(x)) - 1
	if at < 0 {
		at = len(h.list)
		h.list = append(h.list, ranked[T]{})
	}
	h.sift(at, ranked[T]{r, x})
}

// remove takes x out, if it is in.
func (h *heap[T]) remove(x T) {
	at := int(*h.spot(x)) - 1
	if at < 0 {
		return
	}
	*h.spot(x) = 0
	last := len(h.list) - 1
	moved := h.list[last]
	h.list[last] = ranked[T]{}
	h.list = h.list[:last]
	if at < last {
		h.sift(at, moved)
	}
}

// sift finds the place of r, beginning with a free one.
func (h *heap[T]) sift(at int, r ranked[T]) {
	for at > 0 {
		parent := (at - 1) / children
		if !r.rank.before(h.list[parent].rank) {
			break
		}
		h.put(at, h.list[parent])
		at = parent
	}
	for {
		least, found := h.leastChild(at)
		if !found || !h.list[least].rank.before(r.rank) {
			break
		}
		h.put(at, h.list[least])
		at = least
	}
	h.put(at, r)
}

func (h *heap[T]) leastChild(at int) (least int, found bool) {
	first := at*children + 1
	if first >= len(h.list) {
		return 0, false
	}
	least = first
	for i := first + 1; i < min(first+children, len(h.list)); i++ {
		if h.list[i].rank.before(h.list[least].rank) {
			least = i
		}
	}
	return least, true
}

func (h *heap[T]) put(at int, r ranked[T]) {
	h.list[at] = r
	*h.spot(r.what) = int32(at + 1)
}
