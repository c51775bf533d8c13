package services

import "encoding/binary"

// timeProtocol is the Time Protocol, RFC 868: the seconds since the start of
// 1900, UTC, as 32 bits, the highest first, then the connection is closed.
// The number wraps to 0 on 7 February 2036 at 06:28:16 UTC; from then on it
// counts from that second, and a client must guess the era, as with NTP.
var timeProtocol = service{
	clocked: true,
	steps: func(o Options) (program, error) {
		seconds := uint32(o.Now.Unix() + from1900to1970)
		return o.tell(string(binary.BigEndian.AppendUint32(nil, seconds))), nil
	},
}

const from1900to1970 = 2208988800 // seconds; RFC 868 has the number
