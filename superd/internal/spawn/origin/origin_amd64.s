#include "textflag.h"

// func getNoFile(l *Limit)
TEXT ·getNoFile(SB), NOSPLIT, $0-8
	MOVQ $302, AX // prlimit64
	MOVQ $0, DI // this process
	MOVQ $7, SI // RLIMIT_NOFILE
	MOVQ $0, DX
	MOVQ l+0(FP), R10
	SYSCALL
	RET

// func setAction(signal uintptr, to, before *action)
TEXT ·setAction(SB), NOSPLIT, $0-24
	MOVQ $13, AX // rt_sigaction
	MOVQ signal+0(FP), DI
	MOVQ to+8(FP), SI
	MOVQ before+16(FP), DX
	MOVQ $8, R10 // size of a set of signals
	SYSCALL
	RET

// func note()
//
// The number of the signal is in DI; what it returns to is rt_sigreturn(2).
TEXT ·note(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ DI, CX
	MOVQ $1, AX
	SHLQ CX, AX
	LOCK
	ORQ AX, ·Noted(SB)
	RET

// func noteAddress() uintptr
TEXT ·noteAddress(SB), NOSPLIT, $0-8
	LEAQ ·note(SB), AX
	MOVQ AX, ret+0(FP)
	RET
