#include "textflag.h"

// func getNoFile(l *Limit)
TEXT ·getNoFile(SB), NOSPLIT, $0-8
	MOVD $261, R8 // prlimit64
	MOVD $0, R0 // this process
	MOVD $7, R1 // RLIMIT_NOFILE
	MOVD $0, R2
	MOVD l+0(FP), R3
	SVC
	RET

// func setAction(signal uintptr, to, before *action)
TEXT ·setAction(SB), NOSPLIT, $0-24
	MOVD $134, R8 // rt_sigaction
	MOVD signal+0(FP), R0
	MOVD to+8(FP), R1
	MOVD before+16(FP), R2
	MOVD $8, R3 // size of a set of signals
	SVC
	RET

// func note()
//
// The number of the signal is in R0; what it returns to is rt_sigreturn(2).
TEXT ·note(SB), NOSPLIT|NOFRAME, $0-0
	MOVD $1, R1
	LSL R0, R1, R1
	MOVD $·Noted(SB), R2

again:
	LDAXR (R2), R3
	ORR R1, R3, R3
	STLXR R3, (R2), R4
	CBNZ R4, again
	RET

// func noteAddress() uintptr
TEXT ·noteAddress(SB), NOSPLIT, $0-8
	MOVD $·note(SB), R0
	MOVD R0, ret+0(FP)
	RET
