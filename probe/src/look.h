#ifndef LOOK_H
#define LOOK_H

/* The process itself: ids, capabilities, namespaces, security modules, and which others it sees. */
void look_self(void);
/* Mounts, devices, files of the kernel's that can be read or opened for writing. Nothing is written. */
void look_files(void);
/* Links, and which of the addresses answer. */
void look_network(int count, char **addresses);

#endif
