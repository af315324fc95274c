#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* The first byte of an input chooses the target. */
enum { FUZZ_TARGETS = 9, FUZZ_FRAMES = 0, FUZZ_START, FUZZ_EXEC, FUZZ_LIST, FUZZ_USERS, FUZZ_FILES, FUZZ_CONNECTION,
       FUZZ_GUEST, FUZZ_SECRETS };

/* fuzz_guest.c */
void fuzz_guest(const uint8_t *data, size_t size);

/* fuzz_secrets.c */
void fuzz_secrets(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
