/* Who answers: a TCP connection to each address and port, and an echo to each address, all at once. */
#include <asm/poll.h>
#include <linux/in.h>
#include <linux/in6.h>

#include "look.h"
#include "out.h"

enum {
	INET = 2,
	INET6 = 10,
	STREAM = 1,
	DATAGRAM = 2,
	NON_BLOCKING = 04000,
	PATIENCE = 1200,
	TARGETS_MAX = 32,
	LINKS_MAX = 32,
	LINE = 64,
	SOCKET_LEVEL = 1,
	SOCKET_ERROR = 4,
	REFUSED = 111,
};

struct target {
	const char *address;
	long port; /* 0: an echo */
	long fd;
	long result; /* 0 open, an errno, -1 silent */
};

static const short ports[] = {0, 1, 22, 80};
enum { PORTS = sizeof ports / sizeof *ports };
static struct target targets[TARGETS_MAX * PORTS];

static bool parse4(const char *text, unsigned char bytes[4])
{
	for (size_t i = 0; i < 4; i++) {
		const char *before = text;
		bytes[i] = (unsigned char)number_at(&text, 10);
		if (text == before || (i < 3 && *text++ != '.'))
			return false;
	}
	return *text == 0;
}

static uint16_t swapped(long port)
{
	return (uint16_t)((port & 0xff) << 8 | (port >> 8 & 0xff));
}

static void begin(struct target *target)
{
	static const unsigned char echo[8] = {8, 0, 0xf7, 0xfe, 0, 0, 0, 1};
	struct sockaddr_in to = {.sin_family = INET, .sin_port = swapped(target->port)};
	unsigned char bytes[4];
	if (!parse4(target->address, bytes)) {
		target->fd = target->result = -EINVAL;
		return;
	}
	memcpy(&to.sin_addr, bytes, 4);
	target->fd = target->port ? sys(__NR_socket, INET, STREAM | NON_BLOCKING, 0)
				  : sys(__NR_socket, INET, DATAGRAM | NON_BLOCKING, IPPROTO_ICMP);
	if (target->fd < 0) {
		target->result = target->fd;
		return;
	}
	long connected = sys(__NR_connect, target->fd, &to, sizeof to);
	target->result = connected == -EINPROGRESS ? -1 : connected;
	if (!target->port && connected == 0) {
		long sent = sys(__NR_sendto, target->fd, echo, sizeof echo, 0, NONE);
		target->result = sent < 0 ? sent : -1;
	}
}

/* What has become of one that was under way. */
static void settle(struct target *target)
{
	char answer[64];
	int error = 0, length = sizeof error;
	if (!target->port) {
		long got = sys(__NR_recvfrom, target->fd, answer, sizeof answer, 0, NONE);
		target->result = got >= 0 ? 0 : got;
		return;
	}
	long asked = sys(__NR_getsockopt, target->fd, SOCKET_LEVEL, SOCKET_ERROR, &error, &length);
	target->result = asked < 0 ? asked : -error;
}

static void await(size_t count)
{
	static struct pollfd waiting[TARGETS_MAX * PORTS];
	long deadline = now() + PATIENCE;
	for (long left; (left = deadline - now()) > 0;) {
		struct timing time = {left / 1000, left % 1000 * 1000000};
		size_t open = 0;
		for (size_t i = 0; i < count; i++) {
			waiting[i] = (struct pollfd){targets[i].result == -1 ? (int)targets[i].fd : -1,
						     targets[i].port ? POLLOUT : POLLIN, 0};
			open += targets[i].result == -1;
		}
		if (!open || sys(__NR_ppoll, waiting, count, &time, NONE, 8) <= 0)
			return;
		for (size_t i = 0; i < count; i++)
			if (waiting[i].revents)
				settle(&targets[i]);
	}
}

static void tell(const struct target *target)
{
	fact_begin("reach");
	fact_text("address", target->address);
	fact_number("port", target->port);
	fact_text("answer", target->result == 0	       ? target->port ? "open" : "echo"
			    : target->result == -REFUSED ? "refused"
			    : target->result == -1     ? "silent"
						       : "unreachable");
	fact_end();
}

static void look_neighbours(void)
{
	static char table[16384];
	int left = LINKS_MAX;
	if (slurp("/proc/net/arp", table, sizeof table) < 0)
		return;
	for (const char *line = table; *line; line++) {
		char address[LINE];
		size_t length = 0;
		if (*line != '\n' || !line[1])
			continue;
		const char *at = line + 1;
		while (*at && *at != ' ' && length + 1 < sizeof address)
			address[length++] = *at++;
		address[length] = 0;
		number_at(&at, 10); /* 0x1: the kind of link */
		while (*at && *at != ' ')
			at++;
		while (*at == ' ')
			at++;
		/* 0x2: it has told its address. */
		if (!begins(at, "0x2") || left-- <= 0)
			continue;
		fact_begin("neighbour");
		fact_text("address", address);
		fact_end();
	}
}

static void look_links(void)
{
	static char table[16384];
	int left = LINKS_MAX;
	if (slurp("/proc/net/dev", table, sizeof table) < 0)
		return;
	for (const char *line = table; *line; line++) {
		char name[LINE];
		size_t length = 0;
		if (*line != '\n' || !line[1])
			continue;
		const char *at = line + 1;
		while (*at == ' ')
			at++;
		while (*at && *at != ':' && *at != '|' && *at != '\n' && length + 1 < sizeof name)
			name[length++] = *at++;
		name[length] = 0;
		if (*at != ':' || left-- <= 0)
			continue;
		fact_begin("link");
		fact_text("name", name);
		fact_end();
	}
}

void look_network(int count, char **addresses)
{
	size_t made = 0;
	look_links();
	for (int i = 0; i < count && i < TARGETS_MAX; i++)
		for (size_t port = 0; port < PORTS; port++) {
			targets[made] = (struct target){.address = addresses[i], .port = ports[port]};
			begin(&targets[made++]);
		}
	await(made);
	for (size_t i = 0; i < made; i++)
		tell(&targets[i]);
	look_neighbours();
}
