/* The mount calls of Linux 5.12: mounts are file descriptors and are attached through file descriptors. */
#ifndef MOUNTS_H
#define MOUNTS_H

#include <stdint.h>

struct context;

/* A new file system, not attached. `data` is `key=value,key=value`. -1: errno, and the file system's own words in
   `said` (200 bytes) unless that is NULL. */
int mount_new(const char *type, const char *source, const char *data, uint64_t attributes, char *said);
/* A copy of what is mounted at `path` below `directory` (AT_FDCWD; "" is `directory` itself), not attached.
   `flags` are MOUNT_IDMAPPED and MOUNT_RECURSIVE. -1: errno. */
int mount_clone(const struct context *context, int directory, const char *path, uint64_t attributes, uint64_t flags);
/* What to say when mount_clone fails. */
const char *mount_clone_error(uint64_t flags);
/* Sets attributes of a mount, and those below with AT_RECURSIVE in `flags`; id-maps it unless `userns` is -1. */
int mount_change(int mounted, uint64_t attributes, int userns, unsigned flags);
/* Attaches a mount on what `at` is open on. */
int mount_attach(int mounted, int at);
/* The same at an in-root path, which is made where it is missing; closes the mount. As an operation: 0 or -error. */
int mount_in_root(struct context *context, int mounted, const char *target);

#endif
