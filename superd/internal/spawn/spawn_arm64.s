#include "go_asm.h"
#include "textflag.h"

#define SYS_exit_group 94
#define SYS_futex 98
#define SYS_rt_sigprocmask 135
#define SYS_clone 220
#define SIG_SETMASK 2
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129
#define THREAD 0x50f00 // CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD and _SYSVSEM

// func launch(in *instance) int
//
// The child shares this thread's stack and must never touch it: it uses
// registers only, and all signals are blocked while it does.
TEXT ·launch(SB), NOSPLIT|NOFRAME, $0-16
	MOVD in+0(FP), R19

	MOVD $SYS_rt_sigprocmask, R8
	MOVD $SIG_SETMASK, R0
	ADD $instance_blocked, R19, R1
	ADD $instance_mask, R19, R2
	MOVD $8, R3
	SVC

	MOVD (instance_start+step_number)(R19), R8
	MOVD (instance_start+step_args+0)(R19), R0
	MOVD (instance_start+step_args+8)(R19), R1
	MOVD (instance_start+step_args+16)(R19), R2
	MOVD (instance_start+step_args+24)(R19), R3
	MOVD (instance_start+step_args+32)(R19), R4
	SVC
	CBZ R0, child
	MOVD R0, R20

	MOVD $SYS_rt_sigprocmask, R8
	MOVD $SIG_SETMASK, R0
	ADD $instance_mask, R19, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC
	MOVD R20, ret+8(FP)
	RET

child:
	B walk<>(SB)

// walk is what a child does with the instance in R19.
TEXT walk<>(SB), NOSPLIT|NOFRAME, $0
	MOVD instance_told(R19), R22
	MOVD instance_first(R19), R20
	MOVD $0, R21

walk:
	MOVD step_number(R20), R8
	MOVD (step_args+0)(R20), R0
	MOVD (step_args+8)(R20), R1
	MOVD (step_args+16)(R20), R2
	MOVD (step_args+24)(R20), R3
	MOVD (step_args+32)(R20), R4
	MOVD (step_args+40)(R20), R5
	SVC
	ADD $1, R21
	CMN $4095, R0
	BCC next // below -4095 as unsigned numbers: no error
	MOVD step_ignored(R20), R1
	CBZ R1, fail

next:
	MOVD step_decimal(R20), R1
	CBNZ R1, write

counted:
	ADD $told_done, R22, R1
	STLRW R21, (R1) // the parent closes descriptors on its word
	ADD $step__size, R20
	B walk

write: // the digits of R0 at R1: where they end, then from the lowest
	MOVD R0, R2
	MOVD $10, R3

length:
	ADD $1, R1
	UDIV R3, R2
	CBNZ R2, length

digit:
	UDIV R3, R0, R2
	MSUB R3, R0, R2, R4 // the rest: R0 less R2 times R3
	ADD $0x30, R4
	SUB $1, R1
	MOVB R4, (R1)
	MOVD R2, R0
	CBNZ R0, digit
	B counted

fail:
	NEG R0, R0
	MOVW R0, told_errno(R22)
	ADD $told_failed, R22, R1
	STLRW R21, (R1)
	MOVD $SYS_exit_group, R8
	MOVD $127, R0
	SVC
	BRK

// func hire(a *attendant) int
//
// The thread shares the stack of the one that makes it and must never touch
// it, like a child.
TEXT ·hire(SB), NOSPLIT|NOFRAME, $0-16
	MOVD a+0(FP), R22

	MOVD $SYS_rt_sigprocmask, R8
	MOVD $SIG_SETMASK, R0
	ADD $attendant_blocked, R22, R1
	ADD $attendant_mask, R22, R2
	MOVD $8, R3
	SVC

	MOVD $SYS_clone, R8
	MOVD $THREAD, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $0, R3
	MOVD $0, R4
	SVC
	CBZ R0, attend
	MOVD R0, R20

	MOVD $SYS_rt_sigprocmask, R8
	MOVD $SIG_SETMASK, R0
	ADD $attendant_mask, R22, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC
	MOVD R20, ret+8(FP)
	RET

attend:
	MOVD $SYS_futex, R8
	ADD $attendant_called, R22, R0
	MOVD $FUTEX_WAIT_PRIVATE, R1
	MOVD $0, R2
	MOVD $0, R3
	SVC
	ADD $attendant_called, R22, R1
	LDARW (R1), R0
	CBZW R0, attend

	MOVD attendant_job(R22), R19
	MOVD (instance_start+step_number)(R19), R8
	MOVD (instance_start+step_args+0)(R19), R0
	MOVD (instance_start+step_args+8)(R19), R1
	SVC
	CBZ R0, child
	CMP $0, R0
	BGT free

	ADD $instance_born, R19, R1
	STLRW R0, (R1)
	MOVD $SYS_futex, R8
	MOVD R1, R0
	MOVD $FUTEX_WAKE_PRIVATE, R1
	MOVD $1, R2
	SVC

free:
	ADD $attendant_called, R22, R1
	MOVD $0, R0
	STLRW R0, (R1)
	B attend

child:
	B walk<>(SB)
