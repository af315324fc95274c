#include <linux/stat.h>

#include "attempt.h"
#include "look.h"
#include "out.h"

enum {
	READ = 0,
	WRITE = 1,
	GENTLE = 04000 | 0400 | 02000000, /* O_NONBLOCK, O_NOCTTY, O_CLOEXEC */
	NO_LINK = 0400000,
	DIRECTORY = 0200000,
	MOUNTS_MAX = 300,
	DEVICES_MAX = 300,
	WRITABLE_MAX = 60,
	ENTRIES_MAX = 12000,
	DEPTH_MAX = 8,
	WALK_MS = 2500,
	PATH = 1024,
	READ_ONLY_MOUNT = 1,
	BY_ITSELF = 0x100, /* AT_SYMLINK_NOFOLLOW */
	WITH_RIGHTS = 0x200, /* AT_EACCESS */
	MAY_WRITE = 2,
	IS_DIRECTORY = 21,
};

struct entry {
	uint64_t inode, offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

struct walk {
	long deadline;
	int64_t seen, writable, told;
	bool whole;
};

static char mounts[128 << 10];

static long open_of(const char *path, int flags)
{
	return sys(__NR_openat, CURRENT_DIRECTORY, path, flags | GENTLE, 0);
}

/* 0 or an errno: whether it can be opened. Nothing is read from it or written to it. */
static int64_t can_open(const char *path, int flags)
{
	long fd = open_of(path, flags);
	if (fd >= 0)
		sys(__NR_close, fd);
	return fd < 0 ? -fd : 0;
}

static bool is_read_only(const char *path)
{
	struct {
		long words[15];
	} state = {{0}};
	/* f_flags of struct statfs, whose fields are words here. */
	return sys(__NR_statfs, path, &state) == 0 && state.words[10] & READ_ONLY_MOUNT;
}

/* A word of mountinfo with its \040 undone. Moves the line behind it. */
static void word_of(const char **line, char *into, size_t size)
{
	size_t length = 0;
	while (**line == ' ')
		(*line)++;
	while (**line && **line != ' ' && **line != '\n') {
		char letter = *(*line)++;
		const char *at = *line;
		if (letter == '\\' && at[0] >= '0' && at[0] <= '3' && at[1] >= '0' && at[1] <= '7' && at[2] >= '0' &&
		    at[2] <= '7') {
			letter = (char)((at[0] - '0') * 64 + (at[1] - '0') * 8 + at[2] - '0');
			*line += 3;
		}
		if (length + 1 < size)
			into[length++] = letter;
	}
	into[length] = 0;
}

static void look_mount(const char *line)
{
	static char word[PATH], device[32], root[PATH], target[PATH], options[PATH], kind[64];
	word_of(&line, word, sizeof word);
	word_of(&line, word, sizeof word);
	word_of(&line, device, sizeof device);
	word_of(&line, root, sizeof root);
	word_of(&line, target, sizeof target);
	word_of(&line, options, sizeof options);
	do
		word_of(&line, word, sizeof word);
	while (word[0] && !same(word, "-"));
	word_of(&line, kind, sizeof kind);
	fact_begin("mount");
	fact_text("target", target);
	fact_text("kind", kind);
	fact_text("root", root);
	fact_text("device", device);
	fact_flag("read_only", begins(options, "ro"));
	fact_flag("writable", sys(__NR_faccessat2, CURRENT_DIRECTORY, target, MAY_WRITE, WITH_RIGHTS) == 0);
	fact_end();
}

static void look_mounts(void)
{
	int count = 0;
	if (slurp("/proc/self/mountinfo", mounts, sizeof mounts) < 0)
		return;
	for (const char *line = mounts; *line && count < MOUNTS_MAX; count++) {
		look_mount(line);
		while (*line && *line++ != '\n')
			continue;
	}
}

/* Whether opening it would do something: start a watchdog, rewind a tape, raise a line. */
static bool is_touchy(const char *name)
{
	static const char *const touchy[] = {"watchdog", "st", "nst", "ttyS", "ipmi", "mei", "sr", "fd", "lp", "usblp", NULL};
	for (size_t i = 0; touchy[i]; i++)
		if (begins(name, touchy[i]))
			return true;
	return false;
}

static void look_device(const char *path, const char *name, int *left)
{
	struct statx state;
	if (sys(__NR_statx, CURRENT_DIRECTORY, path, BY_ITSELF, STATX_TYPE, &state) < 0)
		return;
	unsigned type = state.stx_mode & S_IFMT;
	if ((type != S_IFCHR && type != S_IFBLK) || (*left)-- <= 0)
		return;
	fact_begin("device");
	fact_text("path", path);
	fact_text("kind", type == S_IFCHR ? "c" : "b");
	fact_number("major", state.stx_rdev_major);
	fact_number("minor", state.stx_rdev_minor);
	fact_number("result", is_touchy(name) ? NOT_TRIED : can_open(path, READ | NO_LINK));
	fact_end();
}

static void look_devices(const char *directory, int depth, int *left)
{
	char entries[2048] __attribute__((aligned(8))), path[PATH];
	long fd = open_of(directory, READ | DIRECTORY | NO_LINK), got;
	while (fd >= 0 && *left > 0 && (got = sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
		for (long at = 0; at < got;) {
			const struct entry *entry = (const struct entry *)(entries + at);
			at += entry->length;
			if (entry->name[0] == '.' || same(entry->name, "pts") || same(entry->name, "shm"))
				continue;
			join(path, sizeof path, directory, "/", entry->name, NULL);
			look_device(path, entry->name, left);
			if (depth > 0 && entry->type == 4)
				look_devices(path, depth - 1, left);
		}
	if (fd >= 0)
		sys(__NR_close, fd);
}

static void look_writable(struct walk *walk, const char *path)
{
	walk->seen++;
	if (can_open(path, WRITE | NO_LINK) != 0)
		return;
	walk->writable++;
	if (walk->told++ >= WRITABLE_MAX)
		return;
	fact_begin("writable");
	fact_text("path", path);
	fact_end();
}

/* Opens every file below for writing, without writing. What is mounted read-only is passed over as a whole. */
static void walk_below(struct walk *walk, const char *directory, int depth)
{
	char entries[2048] __attribute__((aligned(8))), path[PATH];
	if (is_read_only(directory))
		return;
	long fd = open_of(directory, READ | DIRECTORY | NO_LINK), got;
	while (fd >= 0 && (got = sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
		for (long at = 0; at < got;) {
			const struct entry *entry = (const struct entry *)(entries + at);
			at += entry->length;
			if (same(entry->name, ".") || same(entry->name, ".."))
				continue;
			if (now() > walk->deadline || walk->seen > ENTRIES_MAX) {
				walk->whole = false;
				break;
			}
			join(path, sizeof path, directory, "/", entry->name, NULL);
			/* Their files act when they are opened. */
			if (same(path, "/sys/kernel/debug") || same(path, "/sys/kernel/tracing"))
				continue;
			if (entry->type == 8)
				look_writable(walk, path);
			else if (entry->type == 4 && depth > 0)
				walk_below(walk, path, depth - 1);
		}
	if (fd >= 0)
		sys(__NR_close, fd);
}

static void look_tree(const char *tree)
{
	struct walk walk = {.deadline = now() + WALK_MS, .whole = true};
	walk_below(&walk, tree, DEPTH_MAX);
	fact_begin("tree");
	fact_text("path", tree);
	fact_flag("read_only", is_read_only(tree));
	fact_number("seen", walk.seen);
	fact_number("writable", walk.writable);
	fact_flag("whole", walk.whole);
	fact_end();
}

/* What would tell something: an address of the kernel's other than 0 at the beginning of a line. */
static bool tells_address(const char *text)
{
	const char *at = text;
	while (*at == ' ')
		at++;
	return number_at(&at, 16) != 0;
}

/* Whether a directory has anything in it. */
static bool has_entries(long fd)
{
	static char entries[2048] __attribute__((aligned(8)));
	int64_t seen = 0;
	for (long got; seen <= 2 && (got = sys(__NR_getdents64, fd, entries, sizeof entries)) > 0;)
		for (long at = 0; at < got; at += ((const struct entry *)(entries + at))->length)
			seen++;
	return seen > 2;
}

static void look_interface(const char *path)
{
	static char beginning[2048];
	int64_t readable = can_open(path, READ);
	bool telling = false;
	if (readable == 0) {
		long fd = open_of(path, READ), got = sys(__NR_read, fd, beginning, sizeof beginning - 1);
		telling = got > 0;
		beginning[got > 0 ? got : 0] = 0;
		if (got > 0 && (same(path, "/proc/kallsyms") || same(path, "/proc/iomem")))
			telling = tells_address(beginning);
		if (got == -IS_DIRECTORY)
			telling = has_entries(fd);
		sys(__NR_close, fd);
	}
	fact_begin("interface");
	fact_text("path", path);
	fact_number("read", readable);
	fact_number("write", can_open(path, WRITE));
	fact_flag("telling", telling);
	fact_end();
}

static void look_interfaces(void)
{
	static const char *const paths[] = {
		"/proc/kcore", "/proc/kallsyms", "/proc/iomem", "/proc/keys", "/proc/timer_list", "/proc/sched_debug",
		"/proc/interrupts", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/modules", "/proc/config.gz",
		"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
		"/proc/sys/kernel/hotplug", "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/binfmt_misc/register",
		"/proc/sys/kernel/sysrq", "/proc/acpi", "/proc/scsi/scsi", "/dev/kmsg", "/dev/mem", "/dev/kvm", "/dev/fuse",
		"/dev/net/tun", "/dev/vsock", "/dev/vhost-net", "/dev/ppp", "/sys/firmware/acpi/tables",
		"/sys/firmware/dmi/tables/DMI", "/sys/firmware/efi/efivars", "/sys/kernel/uevent_helper",
		"/sys/kernel/vmcoreinfo", "/sys/kernel/security", "/sys/kernel/debug", "/sys/kernel/tracing",
		"/sys/kernel/notes", "/sys/fs/bpf", "/sys/class/powercap/intel-rapl:0/energy_uj",
		"/sys/devices/virtual/powercap", "/sys/module/kernel/parameters", "/sys/power/state",
	};
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		look_interface(paths[i]);
}

struct node {
	const char *path;
	unsigned mode;
	unsigned long device;
};

static long makes_node(const void *argument)
{
	const struct node *node = argument;
	return sys(__NR_mknodat, CURRENT_DIRECTORY, node->path, node->mode | 0600, node->device);
}

static long opens_node(const void *argument)
{
	return open_of(((const struct node *)argument)->path, READ | NO_LINK);
}

static void try_node(const char *kind, struct node node)
{
	int made = attempt(makes_node, &node), opened = NOT_TRIED;
	if (made == DONE) {
		opened = attempt(opens_node, &node);
		sys(__NR_unlinkat, CURRENT_DIRECTORY, node.path, 0);
	}
	fact_begin("node");
	fact_text("kind", kind);
	fact_number("made", made);
	fact_number("opened", opened);
	fact_end();
}

/* The first whole disk that the kernel tells of, as a device number; 0 where it tells of none. */
static unsigned long a_disk(void)
{
	static char table[4096];
	if (slurp("/proc/partitions", table, sizeof table) < 0)
		return 0;
	for (const char *line = table; *line; line++) {
		if (*line != '\n' || line[1] != ' ')
			continue;
		const char *at = line + 1;
		unsigned long major = number_at(&at, 10), minor = number_at(&at, 10);
		if (major != 0)
			return (minor & 0xff) | major << 8 | (minor & ~0xffUL) << 12;
	}
	return 0;
}

/* A node of /dev/null's and one of a disk's: made, opened to be read, and removed. */
static void look_nodes(void)
{
	static const char *const places[] = {"/dev/shm", "/tmp", "/run", "", NULL};
	char path[64], number[24];
	for (size_t i = 0; places[i]; i++) {
		join(path, sizeof path, places[i], "/.audit-", digits(number, (uint64_t)sys(__NR_getpid)), NULL);
		struct node null = {path, S_IFCHR, 1 << 8 | 3}, disk = {path, S_IFBLK, a_disk()};
		if (places[i + 1] && sys(__NR_faccessat2, CURRENT_DIRECTORY, *places[i] ? places[i] : "/", MAY_WRITE, WITH_RIGHTS))
			continue;
		try_node("c", null);
		if (disk.device)
			try_node("b", disk);
		return;
	}
}

void look_files(void)
{
	static const char *const trees[] = {"/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi",
					    "/proc/driver", "/sys", "/sys/fs/cgroup"};
	int left = DEVICES_MAX;
	look_mounts();
	look_devices("/dev", 2, &left);
	look_nodes();
	look_interfaces();
	for (size_t i = 0; i < sizeof trees / sizeof *trees; i++)
		look_tree(trees[i]);
}
