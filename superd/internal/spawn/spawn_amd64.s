#include "go_asm.h"
#include "textflag.h"

#define SYS_rt_sigprocmask 14
#define SYS_clone 56
#define SYS_futex 202
#define SYS_exit_group 231
#define SIG_SETMASK 2
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129
#define THREAD 0x50f00 // CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD and _SYSVSEM

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
	JMP walk<>(SB)

// walk is what a child does with the instance in R12.
TEXT walk<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ instance_told(R12), R14
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
	MOVL BX, told_done(R14)
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
	MOVL AX, told_errno(R14)
	MOVL BX, told_failed(R14)
	MOVQ $SYS_exit_group, AX
	MOVQ $127, DI
	SYSCALL
	INT $3

// func hire(a *attendant) int
//
// The thread shares the stack of the one that makes it and must never touch
// it, like a child.
TEXT ·hire(SB), NOSPLIT|NOFRAME, $0-16
	MOVQ a+0(FP), R15

	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	LEAQ attendant_blocked(R15), SI
	LEAQ attendant_mask(R15), DX
	MOVQ $8, R10
	SYSCALL

	MOVQ $SYS_clone, AX
	MOVQ $THREAD, DI
	MOVQ $0, SI
	MOVQ $0, DX
	MOVQ $0, R10
	MOVQ $0, R8
	SYSCALL
	TESTQ AX, AX
	JEQ attend
	MOVQ AX, R13

	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	LEAQ attendant_mask(R15), SI
	MOVQ $0, DX
	MOVQ $8, R10
	SYSCALL
	MOVQ R13, ret+8(FP)
	RET

attend:
	MOVQ $SYS_futex, AX
	LEAQ attendant_called(R15), DI
	MOVQ $FUTEX_WAIT_PRIVATE, SI
	MOVQ $0, DX
	MOVQ $0, R10
	SYSCALL
	MOVL attendant_called(R15), AX
	TESTL AX, AX
	JEQ attend

	MOVQ attendant_job(R15), R12
	MOVQ (instance_start+step_number)(R12), AX
	MOVQ (instance_start+step_args+0)(R12), DI
	MOVQ (instance_start+step_args+8)(R12), SI
	SYSCALL
	TESTQ AX, AX
	JEQ child
	JGT free

	MOVL AX, instance_born(R12)
	MOVQ $SYS_futex, AX
	LEAQ instance_born(R12), DI
	MOVQ $FUTEX_WAKE_PRIVATE, SI
	MOVQ $1, DX
	SYSCALL

free:
	MOVL $0, attendant_called(R15)
	JMP attend

child:
	JMP walk<>(SB)
