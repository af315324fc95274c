#define _GNU_SOURCE
#include "background.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int background_shield(void)
{
	/* The kernel's struct sigaction, and its own call: libc keeps 32 and 33 to itself, and posix_spawn ignores them. */
	static const unsigned long default_action[4];
	sigset_t all;
	for (int i = 1; i <= SIGRTMAX; i++)
		syscall(SYS_rt_sigaction, i, default_action, NULL, 8);
	sigfillset(&all);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -1;
	return sigprocmask(SIG_SETMASK, &all, NULL);
}

int background_null_stdio(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || chdir("/") < 0)
		return -1;
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null, fd) < 0)
			return -1;
	if (null > 2)
		close(null);
	return 0;
}

void background_protect(void)
{
	static const char never[] = "-1000";
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)!write(fd, never, sizeof never - 1);
	close(fd);
}

int background_detach(void)
{
	if (setsid() < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_NAME, "bulkhead-agent", 0, 0, 0);
}
