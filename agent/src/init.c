/* PID 1 of a guest: from the kernel's first process to a supervisor that serves one virtio-serial port. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "background.h"
#include "guest.h"
#include "guest_ops.h"
#include "mounts.h"
#include "solo.h"
#include "supervisor.h"
#include "text.h"

enum { PORT_TRIES = 30000, PAUSE_US = 1000 };

static const char *const port_name = "bulkhead.agent";

/* Nobody else could say it: on the console, and off. */
static _Noreturn void give_up(const char *what, const char *name)
{
	char text[300], number[24];
	int console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	size_t length = TEXT(text, "agent: cannot ", what, " ", name, ": error ", text_number(number, (uint64_t)errno), "\n");
	if (console < 0 || write(console, text, length) >= 0)
		power_off();
	_exit(1);
}

/* pivot_root(2) refuses the kernel's first root file system, which a workload would leave. A clone of it on top will do. */
static void cover_root(void)
{
	int root = open_tree(AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	int slash = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || slash < 0 || mount_attach(root, slash) < 0 || fchdir(root) < 0 || chroot(".") < 0)
		give_up("cover", "the root");
	close(root);
	close(slash);
}

static void make_directory(const char *path)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		give_up("make", path);
}

/* What a workload finds in /dev and /sys is bound there as it is here: one mount each when it starts. */
static void mount_all(void)
{
	static const struct {
		const char *type, *target, *data;
		unsigned long flags;
		bool make;
	} mounts[] = {
		{"devtmpfs", "/dev", "mode=755", MS_NOSUID | MS_NOEXEC, true},
		{"devpts", "/dev/pts", "ptmxmode=666,mode=620,gid=5", MS_NOSUID | MS_NOEXEC, true},
		{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, true},
		{"proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
		{"sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true},
		{"cgroup2", "/sys/fs/cgroup", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false},
	};
	static const char *const links[][2] = {{"pts/ptmx", "/dev/ptmx"},
					       {"/proc/self/fd", "/dev/fd"},
					       {"/proc/self/fd/0", "/dev/stdin"},
					       {"/proc/self/fd/1", "/dev/stdout"},
					       {"/proc/self/fd/2", "/dev/stderr"}};
	for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
		if (mounts[i].make)
			make_directory(mounts[i].target);
		if (mount(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].data) < 0)
			give_up("mount", mounts[i].target);
	}
	unlink("/dev/ptmx"); /* the one of devpts is what a terminal is opened through */
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		if (symlink(links[i][0], links[i][1]) < 0)
			give_up("link", links[i][1]);
	make_directory("/stage");
}

/* A file of up to `size` - 1 bytes as text; -1: errno. */
static ssize_t read_file(const char *path, char *to, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, to, size - 1);
	if (fd >= 0)
		close(fd);
	to[got > 0 ? got : 0] = 0;
	return got;
}

/* In the order of the file. Their memory is of more use to the workload. */
static void load_modules(void)
{
	char list[8192];
	ssize_t length = read_file("/modules", list, sizeof list);
	if (length == sizeof list - 1)
		errno = E2BIG;
	if (length < 0 || length == sizeof list - 1)
		give_up("read", "/modules");
	for (char *rest, *path = strtok_r(list, "\n", &rest); path != NULL; path = strtok_r(NULL, "\n", &rest)) {
		if (module_load(path) < 0)
			give_up("load", path);
		unlink(path);
	}
}

/* The workload's cgroup: to make it takes longer than to start a process in it, so every start finds it made. */
static void make_cgroup(void)
{
	static const char enable[] = "+cpu +cpuset +io +memory +pids";
	int fd = open("/sys/fs/cgroup/cgroup.subtree_control", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, enable, sizeof enable - 1) < 0)
		give_up("enable", enable);
	close(fd);
	make_directory("/sys/fs/cgroup/bulkhead");
}

static void bring_up_loopback(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		give_up("bring up", "lo");
	close(fd);
}

/* The device of the port that the host has given our name; -1: not there yet. */
static int find_port(const char *wanted, int flags)
{
	static const char *const ports = "/sys/class/virtio-ports";
	char path[400], name[64];
	int fd = -1;
	DIR *directory = opendir(ports);
	for (struct dirent *entry; directory != NULL && fd < 0 && (entry = readdir(directory)) != NULL;) {
		TEXT(path, ports, "/", entry->d_name, "/name");
		if (*entry->d_name == '.' || read_file(path, name, sizeof name) < 0)
			continue;
		name[strcspn(name, "\n")] = 0;
		TEXT(path, "/dev/", entry->d_name);
		if (strcmp(name, wanted) == 0)
			fd = open(path, flags | O_NOCTTY | O_CLOEXEC);
	}
	if (directory != NULL)
		closedir(directory);
	return fd;
}

/* Its driver learns of the name a moment after it was loaded. */
int port_open(const char *name, int flags)
{
	for (int i = 0; i < PORT_TRIES; i++) {
		int fd = find_port(name, flags);
		if (fd >= 0)
			return fd;
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_US * 1000}, NULL);
	}
	return -1;
}

_Noreturn void init(char *const words[])
{
	static const uint32_t nothing[8];
	in_guest = true;
	umask(022);
	cover_root();
	mount_all();
	if (background_shield() < 0 || background_null_stdio() < 0)
		give_up("set up", "the process");
	/* In a session of its own already, where the kernel made one. */
	background_detach();
	load_modules();
	if (solo_wanted()) {
		bring_up_loopback();
		solo(words);
	}
	make_cgroup();
	bring_up_loopback();
	int port = port_open(port_name, O_RDWR | O_NONBLOCK);
	if (port < 0)
		give_up("find the port", port_name);
	supervise(-1, port, nothing);
	power_off();
	_exit(1);
}
