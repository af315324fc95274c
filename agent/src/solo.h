/* PID 1 of a unikernel: one program, and nobody to talk to but two ports. */
#ifndef SOLO_H
#define SOLO_H

#include <stdbool.h>

/* The file that says what to run: docs/reference/unikernels.md. */
extern const char *const solo_file;

/* Whether this initramfs is a unikernel's. */
bool solo_wanted(void);
/* Runs the program with `words` (up to NULL) in the place of its own arguments, where there are any; then off. */
_Noreturn void solo(char *const words[]);

/* solo_told.c: says that it waits, hears, carries the operations out, says that it is done. The words (up to NULL) that
   were told, in the place of its own arguments; NULL: it cannot go on. */
char **solo_told(int port);
/* A line on the console, with errno where there is one. */
void solo_say(const char *what, const char *name);

#endif
