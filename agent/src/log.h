/* The instance's log: `log` in the bundle, lines in the CRI format, rotated by size. */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>
#include <stdint.h>

/* `files` 0: no log at all; `size` 0: never rotated. A log that is there is continued. */
void log_open(int bundle, uint32_t size, uint32_t files);
/* Output of channel 1 or 2. Never waits for room on the disk: what does not fit is lost. */
void log_write(unsigned channel, const unsigned char *data, size_t length);
void log_close(void);

#endif
