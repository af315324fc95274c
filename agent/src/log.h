/* Logs in the bundle: lines in the CRI format, rotated by size. */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>
#include <stdint.h>

struct log {
	const char *name;
	int bundle, fd;
	uint32_t limit, files;
	uint64_t size; /* of whole entries */
};

/* `log`, of the workload, and `vmm.log`, of the machine that a guest runs on. */
extern struct log workload_log, vmm_log;

/* `files` 0: no log at all; `size` 0: never rotated. A log that is there is continued. */
void log_open(struct log *log, int bundle, uint32_t size, uint32_t files);
/* Output of channel 1 or 2. Never waits for room on the disk: what does not fit is lost. */
void log_write(struct log *log, unsigned channel, const unsigned char *data, size_t length);
void log_close(struct log *log);

#endif
