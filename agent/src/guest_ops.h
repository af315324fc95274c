/* Operations on the machine itself. */
#ifndef GUEST_OPS_H
#define GUEST_OPS_H

/* One that is there already is fine. -1: errno. */
int module_load(const char *path);

#endif
