#ifndef FEATURES_H
#define FEATURES_H

/* What needs arguments that make sense: namespaces, kernel interfaces with a history, devices. */
void features_try(void);
/* The families of sockets and the protocols of netlink, without making the kernel load a module. */
void sockets_try(void);

#endif
