/* Somebody else's unikernel, as small as one can be: a line on the serial port, then what its command line asks for.
 * Built as PVH, or with -DMULTIBOOT as multiboot 1. "eN": isa-debug-exit with the digit N; "o": ACPI's power off;
 * "t": a triple fault; anything else: it stays. */
	.code32
#ifdef MULTIBOOT
	.section .head, "a"
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.set COMMAND_LINE, 16
#else
	.section .note.Xen, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long start
	.set COMMAND_LINE, 24
#endif

	.text
	.globl start
start:
	mov	$stack_end, %esp
	mov	COMMAND_LINE(%ebx), %ebp
	mov	$banner, %esi
	call	say
	mov	%ebp, %esi
	call	say
	mov	$newline, %esi
	call	say
	mov	%ebp, %esi
#ifdef MULTIBOOT
1:	lodsb			/* the kernel's own name stands in front */
	test	%al, %al
	jz	stay
	cmp	$' ', %al
	jne	1b
#endif
	lodsb
	cmp	$'e', %al
	je	exit
	cmp	$'o', %al
	je	off
	cmp	$'t', %al
	je	fault
stay:
	cli
	hlt
	jmp	stay

exit:
	xor	%eax, %eax
	lodsb
	sub	$'0', %al
	mov	$0x501, %dx
	out	%eax, %dx
	jmp	stay

off:
	mov	$0x2000, %ax
	mov	$0x604, %dx
	out	%ax, %dx
	jmp	stay

fault:
	lidt	nothing
	ud2

say:
	lodsb
	test	%al, %al
	jz	2f
	mov	%al, %ah
1:	mov	$0x3fd, %dx
	in	%dx, %al
	test	$0x20, %al
	jz	1b
	mov	%ah, %al
	mov	$0x3f8, %dx
	out	%al, %dx
	jmp	say
2:	ret

	.section .rodata
banner:	.asciz "one program and nothing else: "
newline: .asciz "\n"
nothing: .fill 6, 1, 0
	.bss
	.fill 4096, 1, 0
stack_end:
