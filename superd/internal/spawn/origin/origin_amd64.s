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
