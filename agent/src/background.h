/* What a process needs before it is left alone. Each: 0, or -1 with errno. */
#ifndef BACKGROUND_H
#define BACKGROUND_H

/* Not to be read by a workload, and ended by no signal but KILL. */
int background_shield(void);
/* 0, 1 and 2 are /dev/null, the working directory is the host's root. */
int background_null_stdio(void);
/* The last that a kernel without memory ends. Nobody is told where that cannot be. */
void background_protect(void);
/* A session of its own, which reaps the orphans of an instance, whatever the host's init does. */
int background_detach(void);

#endif
