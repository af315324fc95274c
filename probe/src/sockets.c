/* Which sockets can be had. A family that the kernel has not loaded would be loaded for whoever asks for it, so it is
 * asked for with a type that there is not: a filter refuses before the kernel does. It is opened for real where the
 * kernel says that it is there. */
#include "attempt.h"
#include "calls.h"
#include "features.h"
#include "out.h"

#include <linux/mman.h>

enum { FAMILIES = 46, PROTOCOLS = 23, NETLINK = 16, NO_TYPE = 11, STREAM = 1, DATAGRAM = 2, RAW = 3, SEQUENCED = 5 };
enum { NO_SOCKET_TYPE = 94, LOW_MEMORY = 4096, SOCKETCALL = 102, SOCKET_I386 = 359 };

struct wanted {
	long family, type, protocol;
	enum { NATIVE, COMPAT, MULTIPLEXED } by;
	uint32_t *low; /* memory that 32 bits reach */
};

static char table[32768];

static long opens(const void *argument)
{
	const struct wanted *wanted = argument;
	const long compat[5] = {wanted->family, wanted->type, wanted->protocol, 0, 0};
	if (wanted->by == NATIVE)
		return sys(__NR_socket, wanted->family, wanted->type, wanted->protocol);
	if (wanted->by == COMPAT)
		return compat_call(SOCKET_I386, compat);
	for (size_t i = 0; i < 3; i++)
		wanted->low[i] = (uint32_t)compat[i];
	const long call[5] = {1, (long)wanted->low, 0, 0, 0};
	return compat_call(SOCKETCALL, call);
}

/* The type with which a family is opened where /proc/net/protocols has one of its names; 0 where it has none. */
static long loaded(long family)
{
	static const struct {
		short family, type;
		const char *name;
	} known[] = {{15, RAW, "KEY "},	      {17, RAW, "PACKET "},	  {21, SEQUENCED, "RDS "}, {30, SEQUENCED, "TIPC "},
		     {38, SEQUENCED, "ALG "}, {40, STREAM, "AF_VSOCK "}, {44, RAW, "XDP "}};
	if (family == 1 || family == 2 || family == 10)
		return STREAM;
	if (family == NETLINK)
		return RAW;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (known[i].family != family || slurp("/proc/net/protocols", table, sizeof table) <= 0)
			continue;
		for (const char *line = table; *line; line++)
			if ((line == table || line[-1] == '\n') && begins(line, known[i].name))
				return known[i].type;
	}
	return 0;
}

static void try_families(const char *abi, struct wanted wanted)
{
	fact_begin("families");
	fact_text("abi", abi);
	list_begin("results");
	for (wanted.family = 0; wanted.family < FAMILIES; wanted.family++) {
		wanted.type = NO_TYPE;
		int passes = attempt(opens, &wanted), opened = NOT_TRIED;
		if ((wanted.type = loaded(wanted.family)) != 0)
			opened = attempt(opens, &wanted);
		list_number(passes == EINVAL ? DONE : passes);
		list_number(opened);
	}
	list_end();
	fact_end();
}

static bool has_protocol(long protocol)
{
	if (slurp("/proc/net/netlink", table, sizeof table) <= 0)
		return false;
	for (const char *at = table; *at; at++) {
		if (*at != '\n' || !at[1])
			continue;
		const char *word = at + 1;
		number_at(&word, 16); /* the socket's address */
		if ((long)number_at(&word, 10) == protocol)
			return true;
	}
	return false;
}

static void try_protocols(void)
{
	struct wanted wanted = {.family = NETLINK, .by = NATIVE};
	fact_begin("protocols");
	list_begin("results");
	for (wanted.protocol = 0; wanted.protocol < PROTOCOLS; wanted.protocol++) {
		wanted.type = STREAM; /* which netlink has not */
		int passes = attempt(opens, &wanted), opened = NOT_TRIED;
		wanted.type = RAW;
		if (has_protocol(wanted.protocol))
			opened = attempt(opens, &wanted);
		list_number(passes == NO_SOCKET_TYPE ? DONE : passes);
		list_number(opened);
	}
	list_end();
	fact_end();
}

void sockets_try(void)
{
	try_families("x86_64", (struct wanted){.by = NATIVE});
	if (calls_compat()) {
		long low = sys(__NR_mmap, NONE, LOW_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | 0x40, -1,
			       NONE);
		try_families("i386", (struct wanted){.by = COMPAT});
		if (low > 0)
			try_families("socketcall", (struct wanted){.by = MULTIPLEXED, .low = (uint32_t *)low});
	}
	try_protocols();
}
