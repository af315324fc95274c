#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#include "context.h"
#include "inroot.h"
#include "mounts.h"
#include "report.h"

/* The multiplexer of a devpts, and nothing that an image or a workload put in its place. */
static int open_master(int root)
{
	struct stat is;
	struct statfs system;
	int master = inroot_open(root, "dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
	if (master < 0)
		return -1;
	if (fstat(master, &is) < 0 || fstatfs(master, &system) < 0 || !S_ISCHR(is.st_mode) ||
	    is.st_rdev != makedev(5, 2) || system.f_type != DEVPTS_SUPER_MAGIC) {
		close(master);
		errno = ENODEV;
		return -1;
	}
	return master;
}

/* CVE-2025-52565: what is bound is the descriptor that the master gave, not whatever is at /dev/pts/N by now. */
static int bind_console(const struct context *context, int slave)
{
	struct stat is;
	int tree = mount_clone(context, slave, "", 0, 0);
	if (tree < 0)
		return -1;
	int at = inroot_ensure(context->root, "dev/console", false, 0600, NULL), error = 0;
	if (at < 0 || fstat(at, &is) < 0)
		error = errno;
	else if (!S_ISREG(is.st_mode) && !S_ISCHR(is.st_mode))
		error = EINVAL;
	else if (mount_attach(tree, at) < 0)
		error = errno;
	if (at >= 0)
		close(at);
	close(tree);
	errno = error;
	return error ? -1 : 0;
}

int op_console(struct context *context, const struct operation *operation)
{
	(void)operation;
	if (!context->terminal)
		return 0;
	struct winsize size = {.ws_row = context->rows ? context->rows : 24,
			       .ws_col = context->columns ? context->columns : 80};
	int unlock = 0, slave = -1;
	int master = context->root >= 0 ? open_master(context->root) : (errno = ENOTDIR, -1);
	if (master < 0)
		return failed(context, errno, "cannot open a terminal through", "/dev/ptmx");
	if (ioctl(master, TIOCSPTLCK, &unlock) == 0 && ioctl(master, TIOCSWINSZ, &size) == 0)
		slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	int error = slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0 ? errno : 0;
	if (!error && context->place == PLACE_INSIDE && bind_console(context, slave) < 0)
		error = errno;
	for (int fd = 0; fd <= 2 && !error; fd++)
		if (dup2(slave, fd) < 0)
			error = errno;
	if (!error)
		report_console(context->status, master);
	close(master);
	if (slave >= 0)
		close(slave);
	return error ? failed(context, error, "cannot set up the terminal", "") : 0;
}
