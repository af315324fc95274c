#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "link.h"
#include "supervisor.h"
#include "text.h"

/* The guest has had no word of its own. */
static void describe_end(void)
{
	char number[24];
	int wait_status = supervisor.vmm->wait_status;
	if (*supervisor.error != 0)
		return;
	if (exit_signal(wait_status) != 0)
		TEXT(supervisor.error, "the machine was killed by signal ", text_number(number, exit_signal(wait_status)));
	else
		TEXT(supervisor.error, "the machine ended with code ", text_number(number, exit_code(wait_status)),
		     ", without a word of its guest");
}

static void end_without_word(void)
{
	clock_gettime(CLOCK_REALTIME, &supervisor.ended);
	if (supervisor.quit && *supervisor.error == 0) { /* as it was told to */
		supervisor.code = 128 + SIGKILL;
		supervisor.signal = SIGKILL;
		return;
	}
	supervisor.code = 255;
	describe_end();
}

void vmm_ended(void)
{
	bool ended = guest_link.ended;
	link_close();
	guest_link.deadline = 0;
	if (workload.failed) {
		supervisor_start_failed(workload.failure);
		return;
	}
	if (guest_link.unborn) {
		struct failure failure = {.phase = PHASE_REQUEST, .error = ESRCH};
		describe_end();
		TEXT(failure.text, supervisor.error);
		supervisor_start_failed(&failure);
		return;
	}
	if (!ended)
		end_without_word();
	workload.ended = true;
	supervisor_conclude();
}
