package services

import "debug/elf"

// The walker's registers: x19 the record of the step; x20 and x21 address and
// count of what its call has still to do; x22 n.
var arm64 = architecture{
	machine: elf.EM_AARCH64,
	numbers: [calls]uint64{
		callRead:        63,
		callWrite:       64,
		callExitGroup:   94,
		callRtSigaction: 134,
		callPrctl:       167,
		callRecvfrom:    207,
		callShutdown:    210,
	},
	listing: `
d2820013 |         mov   x19, 0x1000             ; dataAt: the first record
f2a00c13 |         movk  x19, 0x60, lsl 16
         | walk:
f9400a74 |         ldr   x20, [x19, 16]          ; Args[1]
f9400e75 |         ldr   x21, [x19, 24]          ; Args[2]
b10006bf |         cmn   x21, 1                  ; n?
9a9502d5 |         csel  x21, x22, x21, eq
         | again:
f9400268 |         ldr   x8, [x19]               ; Call
f9400660 |         ldr   x0, [x19, 8]            ; Args[0]
aa1403e1 |         mov   x1, x20
aa1503e2 |         mov   x2, x21
f9401263 |         ldr   x3, [x19, 32]           ; Args[3]
f9401664 |         ldr   x4, [x19, 40]           ; Args[4]
f9401a65 |         ldr   x5, [x19, 48]           ; Args[5]
d4000001 |         svc   0
b7f80180 |         tbnz  x0, 63, failed
b4000120 |         cbz   x0, zero
aa0003f6 |         mov   x22, x0
f9401e66 |         ldr   x6, [x19, 56]           ; Whole?
b4000086 |         cbz   x6, next
8b000294 |         add   x20, x20, x0
eb0002b5 |         subs  x21, x21, x0
54fffe21 |         b.ne  again
         | next:
f9402273 |         ldr   x19, [x19, 64]          ; Next
17ffffeb |         b     walk
         | zero:
f9402673 |         ldr   x19, [x19, 72]          ; Zero
17ffffe9 |         b     walk
         | failed:
f9402a73 |         ldr   x19, [x19, 80]          ; Failed
17ffffe7 |         b     walk
`,
}
