package control

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
)

// Query is the question what would become of an applicant.
func (a *Applicant) Query(service string) url.Values {
	q := url.Values{"service": {service}}
	if a.Addr.IsValid() {
		q.Set("address", a.Addr.String())
	}
	if a.Port != 0 {
		q.Set("port", strconv.Itoa(int(a.Port)))
	}
	if a.Unix {
		q.Set("uid", strconv.FormatUint(uint64(a.UID), 10))
		for _, gid := range slices.Insert(slices.Clone(a.Groups), 0, a.GID) {
			q.Add("gid", strconv.FormatUint(uint64(gid), 10))
		}
	}
	if a.Datagrams {
		q.Set("datagrams", "true")
	}
	return q
}

// applicant is what Query was made of.
func applicant(q url.Values) (a Applicant, err error) {
	if text := q.Get("address"); text != "" {
		if a.Addr, err = netip.ParseAddr(text); err != nil {
			return a, faultf(http.StatusBadRequest, "%q is not an address", text)
		}
	}
	port, err := unsigned(q.Get("port"), 16)
	if err != nil {
		return a, err
	}
	a.Port, a.Datagrams = uint16(port), q.Get("datagrams") == "true"
	if !q.Has("uid") {
		return a, nil
	}
	if a.UID, err = unsigned(q.Get("uid"), 32); err != nil {
		return a, err
	}
	var groups []uint32
	for _, text := range q["gid"] {
		gid, err := unsigned(text, 32)
		if err != nil {
			return a, err
		}
		groups = append(groups, gid)
	}
	if a.Unix = true; len(groups) == 0 || a.Addr.IsValid() {
		return a, faultf(http.StatusBadRequest, "a process has a uid, a gid or several, and no address")
	}
	a.GID, a.Groups = groups[0], groups[1:]
	return a, nil
}

// unsigned reads one of that many bits; nothing is 0.
func unsigned(text string, bits int) (uint32, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return 0, faultf(http.StatusBadRequest, "%q is not a number of %d bits", text, bits)
	}
	return uint32(n), nil
}

func (d *desk) explain(a *asking) (any, error) {
	q := a.http.URL.Query()
	if q.Get("service") == "" {
		return nil, faultf(http.StatusBadRequest, "explain needs a service")
	}
	who, err := applicant(q)
	if err != nil {
		return nil, err
	}
	return d.daemon.Explain(q.Get("service"), who)
}
