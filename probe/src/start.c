/* From the kernel to main: relocates the program, and gives the stack's guard its value. There is no guard before. */
#include <elf.h>
#include <linux/auxvec.h>

#include "sys.h"

int main(int argc, char **argv);
extern const Elf64_Ehdr __ehdr_start;
extern const Elf64_Dyn _DYNAMIC[];
_Noreturn void begin(long *stack);
_Noreturn void __stack_chk_fail(void);
uintptr_t __stack_chk_guard;

__asm__(".text\n.globl _start\n.type _start, @function\n_start:\n\tendbr64\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n"
	"\tand $-16, %rsp\n\tcall begin\n\thlt\n");

/* All that a program without shared libraries has are addresses of its own. */
__attribute__((optimize("no-stack-protector"))) static void relocate(void)
{
	uintptr_t base = (uintptr_t)&__ehdr_start;
	const Elf64_Rela *first = NULL;
	size_t size = 0;
	for (const Elf64_Dyn *entry = _DYNAMIC; entry->d_tag != DT_NULL; entry++) {
		if (entry->d_tag == DT_RELA)
			first = (const Elf64_Rela *)(base + entry->d_un.d_ptr);
		else if (entry->d_tag == DT_RELASZ)
			size = entry->d_un.d_val;
	}
	for (size_t i = 0; first != NULL && i < size / sizeof *first; i++)
		if (ELF64_R_TYPE(first[i].r_info) == R_X86_64_RELATIVE)
			*(uintptr_t *)(base + first[i].r_offset) = base + (uintptr_t)first[i].r_addend;
}

__attribute__((optimize("no-stack-protector"))) _Noreturn void begin(long *stack)
{
	relocate();
	int argc = (int)stack[0];
	char **argv = (char **)(stack + 1), **after = argv + argc + 1;
	while (*after != NULL)
		after++;
	for (const unsigned long *pair = (unsigned long *)(after + 1); pair[0] != AT_NULL; pair += 2)
		if (pair[0] == AT_RANDOM)
			__stack_chk_guard = *(const uintptr_t *)pair[1];
	sys(__NR_exit_group, main(argc, argv));
	__builtin_unreachable();
}

_Noreturn void __stack_chk_fail(void)
{
	sys(__NR_exit_group, 127);
	__builtin_unreachable();
}
