/* Paths of an instance, resolved below its root whatever links there are. `root` is a directory (O_PATH). */
#ifndef INROOT_H
#define INROOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS and what is in `resolve`; close-on-exec. -1: errno. */
int inroot_open(int root, const char *path, int flags, uint64_t resolve);

/* RESOLVE_NO_SYMLINKS for paths in /proc, /sys and /dev, where a link can only be an attack; else 0. */
uint64_t inroot_guard(const char *path);

/* Opens (O_PATH) what is at `path`. What is missing of it is made: directories, at the end a directory with `mode`
   or an empty file. `made` tells whether the last one is new (may be NULL). -1: errno. */
int inroot_ensure(int root, const char *path, bool directory, mode_t mode, bool *made);

/* Opens (O_PATH) the directory that `path` is in, made where it is missing if `make`; `name` is the last component. */
int inroot_parent(int root, const char *path, const char **name, bool make);

#endif
