package services

import "debug/elf"

// The walker's registers: rbx the record of the step; rbp and r12 address and
// count of what its call has still to do; r13 n. A call leaves rcx and r11
// destroyed, and nothing is kept there.
var amd64 = architecture{
	machine: elf.EM_X86_64,
	numbers: [calls]uint64{
		callRead:        0,
		callWrite:       1,
		callRtSigaction: 13,
		callRecvfrom:    45,
		callShutdown:    48,
		callPrctl:       157,
		callExitGroup:   231,
	},
	listing: `
bb 00 10 60 00 |         mov   ebx, 0x601000           ; dataAt: the first record
               | walk:
48 8b 6b 10    |         mov   rbp, [rbx+16]           ; Args[1]
4c 8b 63 18    |         mov   r12, [rbx+24]           ; Args[2]
49 83 fc ff    |         cmp   r12, -1                 ; n?
4d 0f 44 e5    |         cmove r12, r13
               | again:
48 8b 03       |         mov   rax, [rbx]              ; Call
48 8b 7b 08    |         mov   rdi, [rbx+8]            ; Args[0]
48 89 ee       |         mov   rsi, rbp
4c 89 e2       |         mov   rdx, r12
4c 8b 53 20    |         mov   r10, [rbx+32]           ; Args[3]
4c 8b 43 28    |         mov   r8, [rbx+40]            ; Args[4]
4c 8b 4b 30    |         mov   r9, [rbx+48]            ; Args[5]
0f 05          |         syscall
48 85 c0       |         test  rax, rax
78 20          |         js    failed
74 18          |         jz    zero
49 89 c5       |         mov   r13, rax
48 83 7b 38 00 |         cmp   qword ptr [rbx+56], 0   ; Whole?
74 08          |         je    next
48 01 c5       |         add   rbp, rax
49 29 c4       |         sub   r12, rax
75 cc          |         jne   again
               | next:
48 8b 5b 40    |         mov   rbx, [rbx+64]           ; Next
eb b6          |         jmp   walk
               | zero:
48 8b 5b 48    |         mov   rbx, [rbx+72]           ; Zero
eb b0          |         jmp   walk
               | failed:
48 8b 5b 50    |         mov   rbx, [rbx+80]           ; Failed
eb aa          |         jmp   walk
`,
}
