/* Features of the kernel, each tried for real in a process of its own: what is made goes with that process. */
#include "features.h"

#include <asm/ldt.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/fanotify.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/perf_event.h>
#include <linux/prctl.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/tcp.h>
#include <linux/timex.h>
#include <linux/userfaultfd.h>

#include "attempt.h"
#include "out.h"

enum {
	SIGNAL_CHILD = 17,
	SIGNAL_KILL = 9,
	OPEN_RW = 2,
	NO_TERMINAL = 0400,
	TERMINAL_INPUT = 0x5412,
	TERMINAL_LINUX = 0x541c,
	TERMINAL_DISCIPLINE = 0x5423,
	NO_RANDOM = 0x0040000,
	FAMILY_INET = 2,
	STREAM = 1,
	RAW = 3,
	ICMP = 1,
	DCCP = 6,
	NO_PROTOCOL = 0x1000,
	NOTIFICATION_PIPE = 0200,
	FIFO_SCHEDULING = 1,
	REBOOT_WRONG = 0,
};

#define TERMINAL_NUMBER 0x80045430L
#define TERMINAL_LOCK 0x40045431L

static char area[4096] __attribute__((aligned(16)));

static long unshares(const void *flags)
{
	return sys(__NR_unshare, *(const long *)flags);
}

/* The child of a clone ends; the parent tells. */
static long clones(const void *flags)
{
	long pid = sys(__NR_clone, *(const long *)flags | SIGNAL_CHILD, NONE, NONE, NONE, NONE);
	if (pid == 0)
		sys(__NR_exit_group, 0);
	return pid;
}

static long clones3(const void *flags)
{
	struct clone_args given = {.flags = *(const __u64 *)flags, .exit_signal = SIGNAL_CHILD};
	long pid = sys(__NR_clone3, &given, sizeof given);
	if (pid == 0)
		sys(__NR_exit_group, 0);
	return pid;
}

/* A change of propagation that makes no sense: the permission is looked at first. */
static long changes_mount(const void *unused)
{
	(void)unused;
	return sys(__NR_mount, "none", "/", NONE, (1 << 18) | (1 << 20), NONE);
}

static long makes_mount(const void *unused)
{
	(void)unused;
	return sys(__NR_fsopen, "tmpfs", 0);
}

static long clones_mount(const void *unused)
{
	(void)unused;
	return sys(__NR_open_tree, CURRENT_DIRECTORY, "/", OPEN_TREE_CLONE);
}

static long makes_map(const void *unused)
{
	(void)unused;
	union bpf_attr *map = (void *)area;
	map->map_type = BPF_MAP_TYPE_ARRAY;
	map->key_size = map->value_size = 4;
	map->max_entries = 1;
	return sys(__NR_bpf, BPF_MAP_CREATE, map, 72);
}

static long loads_program(const void *unused)
{
	(void)unused;
	static const struct bpf_insn program[] = {{.code = BPF_ALU64 | BPF_MOV, .imm = 0}, {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr *load = (void *)area;
	load->prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	load->insn_cnt = 2;
	load->insns = (__u64)(uintptr_t)program;
	load->license = (__u64)(uintptr_t) "GPL";
	return sys(__NR_bpf, BPF_PROG_LOAD, load, 72);
}

static long makes_ring(const void *unused)
{
	(void)unused;
	return sys(__NR_io_uring_setup, 1, (struct io_uring_params *)(void *)area);
}

static long handles_faults(const void *flags)
{
	return sys(__NR_userfaultfd, *(const long *)flags);
}

static long adds_key(const void *unused)
{
	(void)unused;
	return sys(__NR_add_key, "user", "bulkhead-audit", "x", 1, KEY_SPEC_PROCESS_KEYRING);
}

static long asks_keyring(const void *unused)
{
	(void)unused;
	return sys(__NR_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1);
}

static long counts(const void *kernel_too)
{
	struct perf_event_attr *wanted = (void *)area;
	wanted->type = PERF_TYPE_SOFTWARE;
	wanted->size = PERF_ATTR_SIZE_VER0;
	wanted->config = PERF_COUNT_SW_TASK_CLOCK;
	wanted->disabled = 1;
	wanted->exclude_kernel = wanted->exclude_hv = !*(const long *)kernel_too;
	return sys(__NR_perf_event_open, wanted, 0, -1, -1, 0);
}

static long traces(const void *unused)
{
	(void)unused;
	long child = new_process();
	if (child == 0) {
		rest(1000);
		sys(__NR_exit_group, 0);
	}
	if (child < 0)
		return child;
	long result = sys(__NR_ptrace, PTRACE_SEIZE, child, NONE, NONE);
	sys(__NR_kill, child, SIGNAL_KILL);
	return result;
}

static long reads_memory(const void *unused)
{
	(void)unused;
	struct {
		void *at;
		size_t length;
	} here = {area, 8}, there = {area + 8, 8};
	return sys(__NR_process_vm_readv, sys(__NR_getpid), &here, 1, &there, 1, 0);
}

static long opens_by_handle(const void *unused)
{
	(void)unused;
	struct {
		unsigned bytes;
		int type;
		char handle[128];
	} handle = {.bytes = 128};
	int mount;
	long result = sys(__NR_name_to_handle_at, CURRENT_DIRECTORY, "/", &handle, &mount, 0);
	return result < 0 ? result : sys(__NR_open_by_handle_at, CURRENT_DIRECTORY, &handle, 0);
}

static long lowers_guard(const void *unused)
{
	(void)unused;
	return sys(__NR_personality, NO_RANDOM);
}

static long writes_ldt(const void *unused)
{
	(void)unused;
	struct user_desc empty = {.read_exec_only = 1, .seg_not_present = 1};
	return sys(__NR_modify_ldt, 1, &empty, sizeof empty);
}

static long takes_ports(const void *unused)
{
	(void)unused;
	return sys(__NR_iopl, 3);
}

/* A tick that no clock has: the permission is looked at first. */
static long sets_clock(const void *unused)
{
	(void)unused;
	struct timex *change = (void *)area;
	change->modes = ADJ_TICK;
	return sys(__NR_adjtimex, change);
}

static long sets_name(const void *unused)
{
	(void)unused;
	return sys(__NR_sethostname, area, -1);
}

static long reads_log(const void *unused)
{
	(void)unused;
	return sys(__NR_syslog, 3, area, 16);
}

static long swaps(const void *unused)
{
	(void)unused;
	return sys(__NR_swapon, "/bulkhead-audit/none", 0);
}

static long accounts(const void *unused)
{
	(void)unused;
	return sys(__NR_acct, "/bulkhead-audit/none");
}

static long loads_module(const void *unused)
{
	(void)unused;
	return sys(__NR_init_module, area, 0, "");
}

/* Magic numbers that are wrong: the permission is looked at first. */
static long reboots(const void *unused)
{
	(void)unused;
	return sys(__NR_reboot, REBOOT_WRONG, REBOOT_WRONG, REBOOT_WRONG, NONE);
}

static long watches_files(const void *unused)
{
	(void)unused;
	return sys(__NR_fanotify_init, FAN_CLASS_CONTENT, 0);
}

static long changes_root(const void *unused)
{
	(void)unused;
	return sys(__NR_chroot, "/");
}

static long joins(const void *path)
{
	long fd = sys(__NR_openat, CURRENT_DIRECTORY, path, 0);
	return fd < 0 ? fd : sys(__NR_setns, fd, 0);
}

static long hurries(const void *unused)
{
	(void)unused;
	int priority = 1;
	return sys(__NR_sched_setscheduler, 0, FIFO_SCHEDULING, &priority);
}

static long opens_raw(const void *unused)
{
	(void)unused;
	return sys(__NR_socket, FAMILY_INET, RAW, ICMP);
}

static long stacks_protocol(const void *unused)
{
	(void)unused;
	long fd = sys(__NR_socket, FAMILY_INET, STREAM, 0);
	return fd < 0 ? fd : sys(__NR_setsockopt, fd, 6, TCP_ULP, "none-such", 9);
}

/* On a terminal of its own, which becomes the controlling one. */
static long on_terminal(const void *request)
{
	char path[40], number[24], character = 'x';
	int index = 0, unlock = 0, line = 0;
	long master = sys(__NR_openat, CURRENT_DIRECTORY, "/dev/ptmx", OPEN_RW | NO_TERMINAL);
	if (master < 0)
		return master;
	sys(__NR_ioctl, master, TERMINAL_LOCK, &unlock);
	sys(__NR_ioctl, master, TERMINAL_NUMBER, &index);
	join(path, sizeof path, "/dev/pts/", digits(number, (unsigned)index), NULL);
	sys(__NR_setsid);
	long terminal = sys(__NR_openat, CURRENT_DIRECTORY, path, OPEN_RW);
	if (terminal < 0)
		return terminal;
	long wanted = *(const long *)request;
	return sys(__NR_ioctl, terminal, wanted, wanted == TERMINAL_DISCIPLINE ? (void *)&line : (void *)&character);
}

/* DCCP with a number of a protocol that there is not, so that nothing is loaded for it. */
static long opens_dccp(const void *unused)
{
	(void)unused;
	return sys(__NR_socket, FAMILY_INET, DCCP, NO_PROTOCOL);
}

static long watches_queue(const void *unused)
{
	(void)unused;
	int ends[2];
	return sys(__NR_pipe2, ends, NOTIFICATION_PIPE);
}

static long by_x32(const void *unused)
{
	(void)unused;
	return sys(0x40000000 | __NR_getpid);
}

static const long zero = 0, one = 1;
static const long new_user = CLONE_NEWUSER, new_mount = CLONE_NEWNS, new_net = CLONE_NEWNET, new_pid = CLONE_NEWPID,
		  new_ipc = CLONE_NEWIPC, new_uts = CLONE_NEWUTS, new_cgroup = CLONE_NEWCGROUP,
		  new_time = CLONE_NEWTIME;
static const long input = TERMINAL_INPUT, console = TERMINAL_LINUX, discipline = TERMINAL_DISCIPLINE;

static const struct feature {
	const char *name;
	long (*what)(const void *);
	const void *argument;
} features[] = {
	{"userns_unshare", unshares, &new_user},
	{"userns_clone", clones, &new_user},
	{"userns_clone3", clones3, &new_user},
	{"ns_mount", unshares, &new_mount},
	{"ns_net", unshares, &new_net},
	{"ns_pid", unshares, &new_pid},
	{"ns_ipc", unshares, &new_ipc},
	{"ns_uts", unshares, &new_uts},
	{"ns_cgroup", unshares, &new_cgroup},
	{"ns_time", unshares, &new_time},
	{"setns", joins, "/proc/self/ns/net"},
	{"mount_change", changes_mount, NULL},
	{"mount_new", makes_mount, NULL},
	{"mount_clone", clones_mount, NULL},
	{"chroot", changes_root, NULL},
	{"bpf_map", makes_map, NULL},
	{"bpf_program", loads_program, NULL},
	{"io_uring", makes_ring, NULL},
	{"userfaultfd", handles_faults, &zero},
	{"userfaultfd_user", handles_faults, &one},
	{"add_key", adds_key, NULL},
	{"keyctl", asks_keyring, NULL},
	{"perf_kernel", counts, &one},
	{"perf_user", counts, &zero},
	{"ptrace", traces, NULL},
	{"process_vm", reads_memory, NULL},
	{"open_by_handle", opens_by_handle, NULL},
	{"no_random", lowers_guard, NULL},
	{"modify_ldt", writes_ldt, NULL},
	{"iopl", takes_ports, NULL},
	{"clock_set", sets_clock, NULL},
	{"hostname_set", sets_name, NULL},
	{"kernel_log", reads_log, NULL},
	{"swap", swaps, NULL},
	{"accounting", accounts, NULL},
	{"module_load", loads_module, NULL},
	{"reboot", reboots, NULL},
	{"fanotify", watches_files, NULL},
	{"realtime", hurries, NULL},
	{"raw_socket", opens_raw, NULL},
	{"tcp_ulp", stacks_protocol, NULL},
	{"tiocsti", on_terminal, &input},
	{"tioclinux", on_terminal, &console},
	{"tiocsetd", on_terminal, &discipline},
	{"dccp", opens_dccp, NULL},
	{"watch_queue", watches_queue, NULL},
	{"x32", by_x32, NULL},
};

void features_try(void)
{
	for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
		fact_begin("attempt");
		fact_text("name", features[i].name);
		fact_number("result", attempt(features[i].what, features[i].argument));
		fact_end();
	}
}
