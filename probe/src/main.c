/* What can be reached from here? Looks, tries, and tells it on standard output, a fact on each line. Leaves nothing.
 *
 *   probe look [ADDRESS ...]   everything; whether these IPv4 addresses answer
 *   probe reference MASK       the system calls alone, as root of a user namespace of its own, with the capabilities of
 *                              the mask (hexadecimal) and without a filter: what the kernel itself answers
 */
#include "calls.h"
#include "features.h"
#include "look.h"
#include "out.h"
#include "reference.h"

int main(int argc, char **argv);

int main(int argc, char **argv)
{
	if (argc == 3 && same(argv[1], "reference")) {
		const char *mask = argv[2];
		if (reference_enter(number_at(&mask, 16)) < 0)
			return 1;
		calls_try();
	} else if (argc >= 2 && same(argv[1], "look")) {
		look_self();
		calls_try();
		features_try();
		sockets_try();
		look_files();
		look_network(argc - 2, argv + 2);
	} else {
		return 2;
	}
	facts_finish();
	return 0;
}
