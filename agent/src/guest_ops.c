/* Operations on the machine itself, for the agent of a guest. */
#define _GNU_SOURCE
#include "guest_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "context.h"
#include "guest.h"
#include "mounts.h"

/* Linux, fs/ext4/ext4.h */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

enum { ENTROPY_MIN = 32, ENTROPY_MAX = 512 };

int need_guest(struct context *context)
{
	return in_guest ? 0 : failed(context, EPERM, "this is for the agent of a guest", "");
}

int module_load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	long result = syscall(SYS_finit_module, fd, "", 0);
	int error = result < 0 && errno != EEXIST ? errno : 0;
	close(fd);
	errno = error;
	return error ? -1 : 0;
}

int op_module(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	if (need_guest(context) < 0)
		return -EPERM;
	return module_load(path) < 0 ? failed(context, errno, "cannot load", path) : 0;
}

int op_clock(struct context *context, const struct operation *operation)
{
	uint64_t seconds = operation_integer(operation, 0), nanoseconds = operation_integer(operation, 1);
	struct timespec now = {.tv_sec = (time_t)seconds, .tv_nsec = (long)nanoseconds};
	if (need_guest(context) < 0)
		return -EPERM;
	return clock_settime(CLOCK_REALTIME, &now) < 0 ? failed(context, errno, "cannot set the clock", "") : 0;
}

/* A guest that was restored has the generator of all others that were: what comes is credited, and used at once. */
int op_entropy(struct context *context, const struct operation *operation)
{
	const struct argument *bytes = &operation->arguments[0];
	union {
		struct rand_pool_info info;
		char space[sizeof(struct rand_pool_info) + ENTROPY_MAX];
	} pool = {0};
	if (need_guest(context) < 0)
		return -EPERM;
	if (bytes->length < ENTROPY_MIN || bytes->length > ENTROPY_MAX)
		return failed(context, EINVAL, "it takes 32 to 512 bytes", "");
	pool.info.entropy_count = (int)bytes->length * 8;
	pool.info.buf_size = (int)bytes->length;
	memcpy(pool.space + sizeof pool.info, bytes->data, bytes->length);
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	int error = fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	return error ? failed(context, error, "cannot seed", "/dev/urandom") : 0;
}

int op_sync(struct context *context, const struct operation *operation)
{
	(void)operation;
	if (need_guest(context) < 0)
		return -EPERM;
	sync();
	return 0;
}

/* The file system of a disk that is mounted: mounting it once more, nowhere, leads to it. That size already is fine. */
int op_grow(struct context *context, const struct operation *operation)
{
	const char *device = operation->arguments[0].data;
	uint64_t size = operation_integer(operation, 1);
	struct statfs status;
	char said[200];
	if (need_guest(context) < 0)
		return -EPERM;
	int mounted = mount_new("ext4", device, "", 0, said);
	if (mounted < 0)
		return failed(context, errno, "cannot reach the file system of", device);
	int error = fstatfs(mounted, &status) < 0 ? errno : 0;
	uint64_t blocks = error ? 0 : size / (uint64_t)status.f_bsize;
	int root = error ? -1 : openat(mounted, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!error && (root < 0 || ioctl(root, EXT4_IOC_RESIZE_FS, &blocks) < 0))
		error = errno;
	if (root >= 0)
		close(root);
	close(mounted);
	return error ? failed(context, error, "cannot grow the file system of", device) : 0;
}

/* A supervisor of its own for an instance in this guest: it has nothing of ours, and its port tells when it is to end. */
int op_serve(struct context *context, const struct operation *operation)
{
	char *arguments[] = {"agent", "serve", (char *)(uintptr_t)operation->arguments[0].data, NULL}, *nothing[] = {NULL};
	if (need_guest(context) < 0)
		return -EPERM;
	pid_t pid = fork();
	if (pid == 0) {
		execve("/proc/self/exe", arguments, nothing);
		_exit(1);
	}
	return pid < 0 ? failed(context, errno, "cannot start a supervisor for the port", arguments[2]) : 0;
}

int power_off(void)
{
	sync();
	return reboot(RB_POWER_OFF);
}

int op_poweroff(struct context *context, const struct operation *operation)
{
	(void)operation;
	if (need_guest(context) < 0)
		return -EPERM;
	return power_off() < 0 ? failed(context, errno, "cannot power off", "") : 0;
}
