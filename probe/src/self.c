#include <linux/utsname.h>

#include "look.h"
#include "out.h"

enum { DIRECTORY = 0200000, LIST_SIZE = 16384 };

static char space[8192];

static void look_namespaces(void)
{
	static const char *const kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
	char path[40], target[64];
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		join(path, sizeof path, "/proc/self/ns/", kinds[i], NULL);
		long length = sys(__NR_readlinkat, CURRENT_DIRECTORY, path, target, sizeof target - 1);
		if (length <= 0)
			continue;
		target[length] = 0;
		const char *at = target;
		while (*at && *at != '[')
			at++;
		if (*at)
			at++;
		fact_begin("namespace");
		fact_text("kind", kinds[i]);
		fact_number("inode", (int64_t)number_at(&at, 10));
		fact_end();
	}
}

static void look_ids(const char *kind, const char *path)
{
	if (slurp(path, space, sizeof space) < 0)
		return;
	fact_begin("ids");
	fact_text("kind", kind);
	list_begin("map");
	for (const char *at = space; *at;) {
		for (unsigned field = 0; field < 3; field++)
			list_number((int64_t)number_at(&at, 10));
		while (*at && (*at < '0' || *at > '9'))
			at++;
	}
	list_end();
	fact_end();
}

/* A line of /proc/self/status as a number; 0 where it is not there. */
static int64_t status_of(const char *name, unsigned base)
{
	for (const char *line = space; *line; line++)
		if ((line == space || line[-1] == '\n') && begins(line, name)) {
			const char *at = line + length_of(name);
			return (int64_t)number_at(&at, base);
		}
	return 0;
}

static void look_status(void)
{
	if (slurp("/proc/self/status", space, sizeof space) < 0)
		return;
	fact_begin("status");
	fact_number("inheritable", status_of("CapInh:", 16));
	fact_number("permitted", status_of("CapPrm:", 16));
	fact_number("effective", status_of("CapEff:", 16));
	fact_number("bounding", status_of("CapBnd:", 16));
	fact_number("ambient", status_of("CapAmb:", 16));
	fact_flag("no_new_privs", status_of("NoNewPrivs:", 10));
	fact_number("seccomp", status_of("Seccomp:", 10));
	fact_number("filters", status_of("Seccomp_filters:", 10));
	fact_end();
}

static void look_modules(void)
{
	char current[160] = "", list[160] = "";
	slurp("/proc/self/attr/current", current, sizeof current);
	slurp("/sys/kernel/security/lsm", list, sizeof list);
	for (char *at = current; *at; at++)
		if (*at == '\n')
			*at = 0;
	fact_begin("lsm");
	fact_text("current", current);
	fact_text("list", list);
	fact_end();
}

static void look_processes(void)
{
	struct entry {
		uint64_t inode, offset;
		unsigned short length;
		unsigned char type;
		char name[];
	};
	static char entries[LIST_SIZE] __attribute__((aligned(8)));
	long fd = sys(__NR_openat, CURRENT_DIRECTORY, "/proc", DIRECTORY), got;
	int64_t seen = 0;
	while (fd >= 0 && (got = sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
		for (long at = 0; at < got;) {
			const struct entry *entry = (const struct entry *)(entries + at);
			seen += entry->name[0] >= '1' && entry->name[0] <= '9';
			at += entry->length;
		}
	fact_begin("processes");
	fact_number("seen", seen);
	fact_end();
}

void look_self(void)
{
	static struct new_utsname system;
	sys(__NR_uname, &system);
	fact_begin("probe");
	fact_number("version", 1);
	fact_text("machine", system.machine);
	fact_text("kernel", system.release);
	fact_text("build", system.version);
	fact_number("uid", sys(__NR_getuid));
	fact_number("gid", sys(__NR_getgid));
	fact_end();
	look_namespaces();
	look_ids("uid", "/proc/self/uid_map");
	look_ids("gid", "/proc/self/gid_map");
	look_status();
	look_modules();
	look_processes();
}
