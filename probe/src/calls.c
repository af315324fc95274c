/* Every system call, by its number. The usual arguments are -1: no descriptor, no address, no process, no flags, so
 * that the kernel looks at them and refuses. Where that would do something, or could be taken for "there is no such
 * call", the table has others. A call that cannot be made without harm is not made, and the report says so. */
#include "calls.h"

#include "attempt.h"
#include "out.h"

enum how {
	PLAIN,	/* with the arguments of the table */
	FORKS,	/* its child ends at once */
	FAULTS, /* without a stack: what would be taken from there is not */
	NEVER,	/* not made */
};

struct special {
	short number;
	enum how how;
	long arguments[5];
};

enum { FIRST_PORTION = 0, PORTION = 120, LAST = 480, EXIT_CODE = 0, FUTEX_WAKE = 1, CLONE_THREAD = 0x10000 };

/* No name of anybody's: what asks for it by these finds nothing. */
#define NOBODY 0x7ffffff0L
#define NO_KEY 0x62756c6bL
#define KEYS_PROCESS (-2L)

static const struct special native[] = {
	{__NR_exit, PLAIN, {EXIT_CODE}},
	{__NR_exit_group, PLAIN, {EXIT_CODE}},
	{__NR_fork, FORKS, {0}},
	{__NR_vfork, FORKS, {0}},
	{__NR_clone, PLAIN, {CLONE_THREAD}}, /* without the memory in common: EINVAL */
	{__NR_rt_sigreturn, FAULTS, {0}},
	{__NR_sync, NEVER, {0}}, /* waits for every disk, and cannot be ended */
	{__NR_kill, PLAIN, {NOBODY, 0}},
	{__NR_shmget, PLAIN, {NO_KEY, 0, 0}}, /* -1 would make one */
	{__NR_msgget, PLAIN, {NO_KEY, 0}},
	{__NR_semget, PLAIN, {NO_KEY, 0, 0}},
	{__NR_socket, PLAIN, {1, 1, 0}},
	{__NR_socketpair, PLAIN, {1, 1, 0, -1}},
	{__NR_personality, PLAIN, {0xffffffffL}}, /* asks */
	{__NR_modify_ldt, PLAIN, {0, 0, 0}},	   /* -1 is answered by ENOSYS */
	{__NR_futex, PLAIN, {-1, FUTEX_WAKE, 0}},  /* so it is here */
	{__NR_unshare, PLAIN, {0}},
	{__NR_init_module, PLAIN, {-1, 0, -1}},
	{__NR_prctl, PLAIN, {-1, -1, -1, -1, -1}},
};

static const struct special compat[] = {
	{1, PLAIN, {EXIT_CODE}},		 /* exit */
	{252, PLAIN, {EXIT_CODE}},		 /* exit_group */
	{2, FORKS, {0}},			 /* fork */
	{190, FORKS, {0}},			 /* vfork */
	{120, PLAIN, {CLONE_THREAD}},		 /* clone */
	{119, FAULTS, {0}},			 /* sigreturn */
	{173, FAULTS, {0}},			 /* rt_sigreturn */
	{36, NEVER, {0}},			 /* sync */
	{37, PLAIN, {NOBODY, 0}},		 /* kill */
	{395, PLAIN, {NO_KEY, 0, 0}},		 /* shmget */
	{399, PLAIN, {NO_KEY, 0}},		 /* msgget */
	{393, PLAIN, {NO_KEY, 0, 0}},		 /* semget */
	{117, PLAIN, {2, NO_KEY, 0, 0}},	 /* ipc: semget; another number is answered by ENOSYS */
	{102, PLAIN, {-1, -1}},			 /* socketcall */
	{359, PLAIN, {1, 1, 0}},		 /* socket */
	{360, PLAIN, {1, 1, 0, -1}},		 /* socketpair */
	{136, PLAIN, {0xffffffffL}},		 /* personality */
	{123, PLAIN, {0, 0, 0}},		 /* modify_ldt */
	{240, PLAIN, {-1, FUTEX_WAKE, 0}},	 /* futex */
	{310, PLAIN, {0}},			 /* unshare */
	{128, PLAIN, {-1, 0, -1}},		 /* init_module */
};

struct call {
	bool compat;
	long number;
	enum how how;
	long arguments[5];
};

static long fork_by(bool is_compat, long number)
{
	long result;
	/* The child of a vfork shares the stack: it must not come back to C. */
	if (is_compat)
		__asm__ volatile("int $0x80\n\ttest %%eax, %%eax\n\tjnz 1f\n\tmov %2, %%eax\n\txor %%edi, %%edi\n\tsyscall\n1:"
				 : "=a"(result)
				 : "a"(number), "i"(__NR_exit_group)
				 : "memory", "rdi", "rcx", "r8", "r9", "r10", "r11");
	else
		__asm__ volatile("syscall\n\ttest %%eax, %%eax\n\tjnz 1f\n\tmov %2, %%eax\n\txor %%edi, %%edi\n\tsyscall\n1:"
				 : "=a"(result)
				 : "a"(number), "i"(__NR_exit_group)
				 : "memory", "rdi", "rcx", "r11");
	return (int)result;
}

static long without_stack(bool is_compat, long number)
{
	if (is_compat)
		__asm__ volatile("xor %%esp, %%esp\n\tint $0x80\n\tud2" : : "a"(number) : "memory");
	else
		__asm__ volatile("xor %%esp, %%esp\n\tsyscall\n\tud2" : : "a"(number) : "memory");
	return 0;
}

static long make(const void *argument)
{
	const struct call *call = argument;
	const long *a = call->arguments;
	if (call->how == FORKS)
		return fork_by(call->compat, call->number);
	if (call->how == FAULTS)
		return without_stack(call->compat, call->number);
	return call->compat ? compat_call(call->number, a) : raw_call(call->number, a[0], a[1], a[2], a[3], a[4], -1);
}

static int try_number(bool is_compat, long number)
{
	struct call call = {is_compat, number, PLAIN, {-1, -1, -1, -1, -1}};
	const struct special *table = is_compat ? compat : native;
	size_t count = is_compat ? sizeof compat / sizeof *compat : sizeof native / sizeof *native;
	for (size_t i = 0; i < count; i++) {
		if (table[i].number != number)
			continue;
		call.how = table[i].how;
		memcpy(call.arguments, table[i].arguments, sizeof call.arguments);
	}
	return call.how == NEVER ? NOT_TRIED : attempt(make, &call);
}

bool calls_compat(void)
{
	struct call call = {true, 20, PLAIN, {0}}; /* getpid */
	return attempt(make, &call) < BY_SIGNAL;
}

void calls_try(void)
{
	bool has_compat = calls_compat();
	for (int is_compat = 0; is_compat <= has_compat; is_compat++)
		for (long first = FIRST_PORTION; first < LAST; first += PORTION) {
			fact_begin("calls");
			fact_text("abi", is_compat ? "i386" : "x86_64");
			fact_number("first", first);
			list_begin("results");
			for (long number = first; number < first + PORTION; number++)
				list_number(try_number(is_compat, number));
			list_end();
			fact_end();
		}
}
