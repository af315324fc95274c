/* The guard of a host: ends instances once a deadline has passed that the daemon has not put off. See design 0032. */
#ifndef GUARD_H
#define GUARD_H

#include <stdint.h>

struct guard_options {
	int listener;
	/* A SOCK_SEQPACKET socket that listens. */
	int armed, fenced;
	/* Directories: a file per instance that is to be ended in time, and that has been. */
	uint64_t deadline, silence;
	/* Nanoseconds: of the clock that runs on while the host sleeps, and for which a daemon may say nothing after it. */
	char **trees;
	/* Directories whose children are the instances' cgroups, one of each hierarchy; the last is NULL. */
};

/* Goes on until it is told to end. */
void guard(const struct guard_options *options);

/* Signals KILL to everything in the cgroup DIRECTORY and below it, thawed; how many there were, or -1. */
long guard_kill(const char *directory);

/* Moves every name of an instance from one directory to the other; 0, or -1. */
int guard_mark(int armed, int fenced);

#endif
