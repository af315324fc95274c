/* NETIF and MACVLAN: interfaces of a guest, over rtnetlink. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "context.h"
#include "guest.h"
#include "text.h"

enum { MAC_LENGTH = 6, MTU_MAX = 65535, DUMP_SIZE = 16 << 10, ROUNDS = 64 };

static const char nobodys[] = "bulkhead.new";

struct message {
	struct nlmsghdr header;
	char space[256];
};

struct address {
	unsigned char family, prefix;
	unsigned char bytes[16];
	unsigned short length;
};

/* "10.0.0.2/24", or without a prefix the address alone. */
static int parse_address(const char *text, bool with_prefix, struct address *address)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t length = slash ? (size_t)(slash - text) : strlen(text);
	uint64_t prefix = 0;
	bool six = strchr(text, ':') != NULL;
	*address = (struct address){.family = six ? AF_INET6 : AF_INET, .length = six ? 16 : 4};
	if (length >= sizeof host || (slash != NULL) != with_prefix)
		return -1;
	memcpy(host, text, length);
	host[length] = 0;
	if (slash != NULL && text_parse(slash + 1, strlen(slash + 1), six ? 128 : 32, &prefix) < 0)
		return -1;
	address->prefix = (unsigned char)prefix;
	return inet_pton(address->family, host, address->bytes) == 1 ? 0 : -1;
}

static void begin(struct message *message, unsigned short type, unsigned short flags, const void *body, size_t length)
{
	*message = (struct message){.header = {.nlmsg_len = (uint32_t)NLMSG_SPACE(length),
					       .nlmsg_type = type,
					       .nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags)}};
	memcpy(NLMSG_DATA(&message->header), body, length);
}

static void add(struct message *message, unsigned short type, const void *data, unsigned short length)
{
	struct rtattr *attribute = (struct rtattr *)(void *)((char *)message + message->header.nlmsg_len);
	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(length);
	if (length > 0)
		memcpy(RTA_DATA(attribute), data, length);
	message->header.nlmsg_len += (uint32_t)RTA_SPACE(length);
}

/* Sends it and waits for the kernel's word. -1: errno. */
static int ask(int fd, const struct message *message)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr said;
		char rest[512];
	} answer;
	if (send(fd, message, message->header.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0)
		return -1;
	errno = answer.header.nlmsg_type == NLMSG_ERROR ? -answer.said.error : EPROTO;
	return errno == 0 || errno == EEXIST ? 0 : -1;
}

/* The first address of the interface that the kernel tells of, as the message that deletes it. 1: one, 0: none. */
static int first_address(int fd, int index, struct message *message)
{
	static char answer[DUMP_SIZE] __attribute__((aligned(NLMSG_ALIGNTO)));
	const struct ifaddrmsg all = {.ifa_family = AF_UNSPEC};
	int found = 0;
	begin(message, RTM_GETADDR, NLM_F_DUMP, &all, sizeof all);
	if (send(fd, message, message->header.nlmsg_len, 0) < 0)
		return -1;
	for (;;) {
		ssize_t got = recv(fd, answer, sizeof answer, 0);
		if (got <= 0)
			return -1;
		size_t left = (size_t)got;
		for (const struct nlmsghdr *at = (const void *)answer; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
			const struct ifaddrmsg *address = NLMSG_DATA(at);
			if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR)
				return found;
			if (found || at->nlmsg_type != RTM_NEWADDR || (int)address->ifa_index != index ||
			    at->nlmsg_len > sizeof *message)
				continue;
			memcpy(message, at, at->nlmsg_len);
			message->header.nlmsg_type = RTM_DELADDR;
			message->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
			found = 1;
		}
	}
}

/* An interface that is up has been somebody's. Its routes and neighbours, and most addresses of IPv6, go with the link. */
static int clear(int fd, int index)
{
	struct ifinfomsg link = {.ifi_index = index, .ifi_change = IFF_UP};
	struct message message;
	int found = 0;
	begin(&message, RTM_NEWLINK, 0, &link, sizeof link);
	if (ask(fd, &message) < 0)
		return -1;
	for (int i = 0; i < ROUNDS && (found = first_address(fd, index, &message)) > 0; i++)
		if (ask(fd, &message) < 0 && errno != EADDRNOTAVAIL)
			return -1;
	errno = found > 0 ? E2BIG : errno;
	return found == 0 ? 0 : -1;
}

static int set_link(int fd, int index, const struct argument *mac, uint32_t mtu)
{
	struct ifinfomsg link = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	struct message message;
	begin(&message, RTM_NEWLINK, 0, &link, sizeof link);
	if (mac->length > 0)
		add(&message, IFLA_ADDRESS, mac->data, MAC_LENGTH);
	if (mtu > 0)
		add(&message, IFLA_MTU, &mtu, sizeof mtu);
	return ask(fd, &message);
}

static int add_address(int fd, int index, const struct address *address)
{
	/* The engine has seen to it that the address is nobody else's. */
	struct ifaddrmsg about = {.ifa_family = address->family,
				  .ifa_prefixlen = address->prefix,
				  .ifa_flags = address->family == AF_INET6 ? IFA_F_NODAD : 0,
				  .ifa_index = (unsigned)index};
	struct message message;
	begin(&message, RTM_NEWADDR, NLM_F_CREATE, &about, sizeof about);
	add(&message, IFA_LOCAL, address->bytes, address->length);
	add(&message, IFA_ADDRESS, address->bytes, address->length);
	return ask(fd, &message);
}

static int add_gateway(int fd, int index, const struct address *gateway)
{
	struct rtmsg route = {.rtm_family = gateway->family,
			      .rtm_table = RT_TABLE_MAIN,
			      .rtm_protocol = RTPROT_STATIC,
			      .rtm_scope = RT_SCOPE_UNIVERSE,
			      .rtm_type = RTN_UNICAST};
	struct message message;
	begin(&message, RTM_NEWROUTE, NLM_F_CREATE, &route, sizeof route);
	add(&message, RTA_GATEWAY, gateway->bytes, gateway->length);
	add(&message, RTA_OIF, &index, sizeof index);
	return ask(fd, &message);
}

static int find(struct context *context, int fd, const char *name, bool *up)
{
	struct ifreq request = {0};
	TEXT(request.ifr_name, name);
	if (strlen(name) >= sizeof request.ifr_name)
		return failed(context, ENAMETOOLONG, "no interface is named", name);
	if (ioctl(fd, SIOCGIFINDEX, &request) < 0)
		return failed(context, errno, "no interface is named", name);
	int index = request.ifr_ifindex;
	*up = ioctl(fd, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & (IFF_UP | IFF_LOOPBACK)) == IFF_UP;
	return index;
}

static int set_up(struct context *context, int fd, const struct operation *operation)
{
	const struct argument *arguments = operation->arguments;
	struct address address;
	uint64_t mtu = operation_integer(operation, 4);
	if ((arguments[1].length != 0 && arguments[1].length != MAC_LENGTH) || mtu > MTU_MAX)
		return failed(context, EINVAL, "a MAC is not 6 bytes long, or the MTU is too large for", arguments[0].data);
	bool up = false;
	int index = find(context, fd, arguments[0].data, &up);
	if (index < 0)
		return index;
	if (up && clear(fd, index) < 0)
		return failed(context, errno, "cannot clear", arguments[0].data);
	if (set_link(fd, index, &arguments[1], (uint32_t)mtu) < 0)
		return failed(context, errno, "cannot bring up", arguments[0].data);
	for (unsigned i = 5; i < operation->count; i++) {
		if (parse_address(arguments[i].data, true, &address) < 0)
			return failed(context, EINVAL, "not an address with a prefix:", arguments[i].data);
		if (add_address(fd, index, &address) < 0)
			return failed(context, errno, "cannot add the address", arguments[i].data);
	}
	for (unsigned i = 2; i <= 3; i++) {
		if (arguments[i].length == 0)
			continue;
		if (parse_address(arguments[i].data, false, &address) < 0 ||
		    address.family != (i == 2 ? AF_INET : AF_INET6))
			return failed(context, EINVAL, "not an address of a gateway:", arguments[i].data);
		if (add_gateway(fd, index, &address) < 0)
			return failed(context, errno, "cannot add the route through", arguments[i].data);
	}
	return 0;
}

static void begin_nest(struct message *message, unsigned short type, struct rtattr **nest)
{
	*nest = (struct rtattr *)(void *)((char *)message + message->header.nlmsg_len);
	add(message, type, NULL, 0);
}

static void end_nest(const struct message *message, struct rtattr *nest)
{
	nest->rta_len = (unsigned short)((const char *)message + message->header.nlmsg_len - (const char *)nest);
}

/* Asked in the namespace of the parent; the new interface is in that of `into`. Its mode is that of a bridge. The kernel
   looks for its name here as well, so it gets one that is nobody's. */
static int make_macvlan(int fd, int parent, const struct argument *mac, int into)
{
	static const uint32_t mode = MACVLAN_MODE_BRIDGE;
	const struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
	struct message message;
	struct rtattr *about, *data;
	begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
	add(&message, IFLA_IFNAME, nobodys, sizeof nobodys);
	add(&message, IFLA_LINK, &parent, sizeof parent);
	add(&message, IFLA_ADDRESS, mac->data, MAC_LENGTH);
	add(&message, IFLA_NET_NS_FD, &into, sizeof into);
	begin_nest(&message, IFLA_LINKINFO, &about);
	add(&message, IFLA_INFO_KIND, "macvlan", sizeof "macvlan");
	begin_nest(&message, IFLA_INFO_DATA, &data);
	add(&message, IFLA_MACVLAN_MODE, &mode, sizeof mode);
	end_nest(&message, data);
	end_nest(&message, about);
	return ask(fd, &message) < 0 || errno == EEXIST ? -1 : 0;
}

static int make_outside(struct context *context, const char *parent, const struct argument *mac, int into)
{
	bool up;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int index = fd < 0 ? failed(context, errno, "cannot open", "rtnetlink") : find(context, fd, parent, &up);
	int result = index < 0				      ? index
		     : make_macvlan(fd, index, mac, into) < 0 ? failed(context, errno, "cannot make a macvlan on", parent)
							      : 0;
	if (fd >= 0)
		close(fd);
	return result;
}

static int rename_link(struct context *context, const char *name)
{
	bool up;
	struct message message;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int index = fd < 0 ? failed(context, errno, "cannot open", "rtnetlink") : find(context, fd, nobodys, &up);
	int result = index < 0 ? index : 0;
	if (index >= 0) {
		const struct ifinfomsg link = {.ifi_index = index};
		begin(&message, RTM_NEWLINK, 0, &link, sizeof link);
		add(&message, IFLA_IFNAME, name, (unsigned short)(strlen(name) + 1));
		result = ask(fd, &message) < 0 ? failed(context, errno, "cannot name the interface", name) : 0;
	}
	if (fd >= 0)
		close(fd);
	return result;
}

/* An interface in this network namespace on top of one of PID 1's. */
int op_macvlan(struct context *context, const struct operation *operation)
{
	const char *name = operation->arguments[0].data, *parent = operation->arguments[1].data;
	const struct argument *mac = &operation->arguments[2];
	if (need_guest(context) < 0)
		return -EPERM;
	if (mac->length != MAC_LENGTH || strlen(name) >= IFNAMSIZ)
		return failed(context, EINVAL, "a MAC is not 6 bytes long, or the name is too long:", name);
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), first = open("/proc/1/ns/net", O_RDONLY | O_CLOEXEC);
	int result = own < 0 || first < 0 || setns(first, CLONE_NEWNET) < 0
			     ? failed(context, errno, "cannot reach the network of", "the guest")
			     : make_outside(context, parent, mac, own);
	if (own >= 0 && setns(own, CLONE_NEWNET) < 0)
		result = failed(context, errno, "cannot go back to", "the network namespace");
	if (own >= 0)
		close(own);
	if (first >= 0)
		close(first);
	return result < 0 ? result : rename_link(context, name);
}

int op_netif(struct context *context, const struct operation *operation)
{
	if (need_guest(context) < 0)
		return -EPERM;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return failed(context, errno, "cannot open", "rtnetlink");
	int result = set_up(context, fd, operation);
	close(fd);
	return result;
}
