#include "go_asm.h"
#include "textflag.h"

#define SYS_rt_sigprocmask 14
#define SYS_exit_group 231
#define SIG_SETMASK 2

// func launch(in *instance) int
//
// The child shares this thread's stack and must never touch it: it uses
// registers only, and all signals are blocked while it does.
TEXT ·launch(SB), NOSPLIT|NOFRAME, $0-16
	MOVQ in+0(FP), R12

	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	LEAQ instance_blocked(R12), SI
	LEAQ instance_mask(R12), DX
	MOVQ $8, R10
	SYSCALL

	MOVQ (instance_start+step_number)(R12), AX
	MOVQ (instance_start+step_args+0)(R12), DI
	MOVQ (instance_start+step_args+8)(R12), SI
	MOVQ (instance_start+step_args+16)(R12), DX
	MOVQ (instance_start+step_args+24)(R12), R10
	MOVQ (instance_start+step_args+32)(R12), R8
	SYSCALL
	TESTQ AX, AX
	JEQ child
	MOVQ AX, R13

	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	LEAQ instance_mask(R12), SI
	MOVQ $0, DX
	MOVQ $8, R10
	SYSCALL
	MOVQ R13, ret+8(FP)
	RET

child:
	MOVQ instance_first(R12), R13
	XORL BX, BX

walk:
	MOVQ step_number(R13), AX
	MOVQ (step_args+0)(R13), DI
	MOVQ (step_args+8)(R13), SI
	MOVQ (step_args+16)(R13), DX
	MOVQ (step_args+24)(R13), R10
	MOVQ (step_args+32)(R13), R8
	MOVQ (step_args+40)(R13), R9
	SYSCALL
	INCL BX
	CMPQ AX, $-4095
	JCS next // below as unsigned numbers: no error
	CMPQ step_ignored(R13), $0
	JEQ fail

next:
	MOVQ step_decimal(R13), R9
	TESTQ R9, R9
	JNE write

counted:
	MOVL BX, instance_done(R12)
	ADDQ $step__size, R13
	JMP walk

write: // the digits of AX at R9: where they end, then from the lowest
	MOVQ AX, R8
	MOVQ $10, R10

length:
	INCQ R9
	XORL DX, DX
	DIVQ R10
	TESTQ AX, AX
	JNE length
	MOVQ R8, AX

digit:
	XORL DX, DX
	DIVQ R10
	ADDL $'0', DX
	DECQ R9
	MOVB DX, (R9)
	TESTQ AX, AX
	JNE digit
	JMP counted

fail:
	NEGL AX
	MOVL AX, instance_errno(R12)
	MOVL BX, instance_failed(R12)
	MOVQ $SYS_exit_group, AX
	MOVQ $127, DI
	SYSCALL
	INT $3
