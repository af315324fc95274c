/* The processes of a cgroup. `path` is its cgroup.procs or, with cgroup v2, its cgroup.kill. */
#ifndef KILLALL_H
#define KILLALL_H

/* KILL until the cgroup names nobody, for up to 10 s. 0, or -1 with errno (ETIMEDOUT). A missing cgroup is empty. */
int killall(const char *path);
/* One signal to each. 0, or -1 with errno. */
int signal_all(const char *path, int number);

#endif
