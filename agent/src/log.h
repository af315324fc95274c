/* Logs in the bundle: lines in the CRI format, rotated by size. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log {
	const char *name;
	int bundle, fd;
	uint32_t limit, files;
	uint64_t size;	     /* of whole entries */
	uint64_t owed, paid; /* bytes written that its rate has not made up for yet, by when (ms) */
	bool awaited;	     /* somebody was told to wait */
};

/* What is written is the supervisor's work and the host's disk, both outside of the instance's plan: it is bounded by how
   much of it may come in a second, and at once after a pause. */
#define LOG_RATE ((uint64_t)8 << 20)
#define LOG_BURST ((uint64_t)32 << 20)

/* `log`, of the workload, and `vmm.log`, of the machine that a guest runs on. */
extern struct log workload_log, vmm_log;

/* `files` 0: no log at all; `size` 0: never rotated. A log that is there is continued. */
void log_open(struct log *log, int bundle, uint32_t size, uint32_t files);
/* Output of channel 1 or 2. Never waits for room on the disk: what does not fit is lost. */
void log_write(struct log *log, unsigned channel, const unsigned char *data, size_t length);
void log_close(struct log *log);
/* How many milliseconds its writers are to wait before they write more; 0: none. */
int log_wait(struct log *log);

#endif
