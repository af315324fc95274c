/* What an instance sees of its plan, and what it gets: `gauge WHAT [ARGUMENTS]`, a line of numbers each.

   sees                    processors, bytes of memory, bytes of the file system, bytes of the disk below it (0: not told)
   cpu SECONDS             rounds of work of all processors together in a second
   read|write BYTES SECONDS    direct transfers of so many bytes each in a second, eight at a time, anywhere in a file
   send|receive ADDRESS PORT SECONDS    bytes of a connection in a second
   processes               how many there can be, itself among them
   memory                  bytes that it has touched, every MiB, until it is ended
   file                    bytes that a file can have

   Its files are below $GAUGE_ROOT (/). Once it counts, it says "begun" on standard error. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 8, MOST = 4096, LARGE = 1 << 20, FILE_SIZE = 48 << 20 };
/* Where its files are: a unikernel's root cannot be written to. */
static char data_name[64] = "/gauge.data", large_name[64] = "/gauge.large";
static const char *root = "/";

#define BEGUN "begun\n" /* for whoever counts from outside */
static volatile uint64_t *counts;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static uint64_t line_of(const char *file, const char *key)
{
	char line[256];
	unsigned long long value = 0;
	FILE *from = fopen(file, "r");
	while (from && fgets(line, sizeof line, from))
		if (strncmp(line, key, strlen(key)) == 0)
			sscanf(line + strlen(key), " %llu", &value);
	if (from)
		fclose(from);
	return value;
}

static void sees(void)
{
	struct statvfs files;
	if (statvfs(root, &files) < 0)
		exit(1);
	/* Of a virtual machine: its second disk is what the plan's is; nobody else is shown one. */
	uint64_t sectors = line_of("/sys/block/vda/size", "");
	cpu_set_t mine;
	CPU_ZERO(&mine);
	sched_getaffinity(0, sizeof mine, &mine);
	printf("%d %llu %llu %llu\n", CPU_COUNT(&mine),
	       (unsigned long long)line_of("/proc/meminfo", "MemTotal:") * 1024,
	       (unsigned long long)files.f_blocks * files.f_frsize, (unsigned long long)sectors * 512);
}

/* `work` in so many processes until the time is over; what they have counted, in a second. */
static void measure(int width, double seconds, void (*work)(int, double))
{
	double begun = now(), end = begun + seconds;
	fputs(BEGUN, stderr);
	uint64_t sum = 0;
	for (int i = 0; i < width; i++)
		if (fork() == 0) {
			work(i, end);
			_exit(0);
		}
	for (int i = 0, status; i < width; i++)
		if (wait(&status) < 0 || status != 0)
			exit(1);
	for (int i = 0; i < width; i++)
		sum += counts[i * 8];
	printf("%.3f\n", (double)sum / (now() - begun));
}

static void work_on(int number, double end)
{
	uint64_t rounds = 0;
	while (now() < end) {
		for (volatile int i = 0; i < 20000; i++)
			;
		rounds++;
	}
	counts[number * 8] = rounds;
}

static size_t block;
static int writes;

static void transfer(int number, double end)
{
	uint32_t random = (uint32_t)number * 7919u + 1;
	uint64_t done = 0, blocks = FILE_SIZE / block;
	char *data = mmap(NULL, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open(data_name, O_RDWR | O_DIRECT);
	if (fd < 0)
		_exit(1);
	while (now() < end) {
		random = random * 1664525u + 1013904223u;
		off_t at = (off_t)((random >> 8) % blocks * block);
		if ((writes ? pwrite(fd, data, block, at) : pread(fd, data, block, at)) != (ssize_t)block)
			_exit(1);
		done++;
	}
	counts[number * 8] = done;
}

static void prepare(void)
{
	static char data[LARGE];
	int fd = open(data_name, O_RDWR | O_CREAT, 0600);
	memset(data, 0x5a, sizeof data);
	for (off_t at = 0; at < FILE_SIZE; at += LARGE)
		if (pwrite(fd, data, LARGE, at) != LARGE)
			exit(1);
	if (fsync(fd) < 0)
		exit(1);
	close(fd);
}

static void network(int sends, const char *address, int port, double seconds)
{
	static char data[1 << 16];
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	uint64_t moved = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	inet_pton(AF_INET, address, &to.sin_addr);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
		perror("connect");
		exit(1);
	}
	fputs(BEGUN, stderr);
	double begun = now();
	while (now() - begun < seconds) {
		ssize_t part = sends ? send(fd, data, sizeof data, MSG_NOSIGNAL) : recv(fd, data, sizeof data, 0);
		if (part <= 0)
			break;
		moved += (uint64_t)part;
	}
	printf("%.1f\n", (double)moved / (now() - begun));
}

static void processes(void)
{
	int made = 1;
	for (pid_t pid; made < 1 << 20; made++) {
		pid = fork();
		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid < 0)
			break;
	}
	printf("%d\n", made);
	fflush(stdout);
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
}

static void memory(void)
{
	for (uint64_t touched = 0;; touched += LARGE) {
		unsigned char *more = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (more == MAP_FAILED)
			return;
		for (size_t i = 0; i < LARGE; i += MOST)
			more[i] = 1;
		printf("%llu\n", (unsigned long long)touched + LARGE);
		fflush(stdout);
	}
}

static void file(void)
{
	static char data[LARGE];
	uint64_t size = 0;
	int fd = open(large_name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (ssize_t part; (part = write(fd, data, sizeof data)) > 0; size += (uint64_t)part)
		;
	printf("%llu\n", (unsigned long long)size);
	close(fd);
	unlink(large_name);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *given = getenv("GAUGE_ROOT");
	if (given && strlen(given) < 32) {
		root = given;
		snprintf(data_name, sizeof data_name, "%s/gauge.data", root);
		snprintf(large_name, sizeof large_name, "%s/gauge.large", root);
	}
	counts = mmap(NULL, WIDTH * 64 + MOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (strcmp(what, "sees") == 0) {
		sees();
	} else if (strcmp(what, "cpu") == 0 && argc == 3) {
		measure(WIDTH, atof(argv[2]), work_on);
	} else if ((strcmp(what, "read") == 0 || (writes = strcmp(what, "write") == 0)) && argc == 4) {
		block = (size_t)atol(argv[2]);
		if (access(data_name, F_OK) < 0)
			prepare();
		measure(WIDTH, atof(argv[3]), transfer);
	} else if (strcmp(what, "prepare") == 0) {
		prepare();
	} else if ((strcmp(what, "send") == 0 || strcmp(what, "receive") == 0) && argc == 5) {
		network(*what == 's', argv[2], atoi(argv[3]), atof(argv[4]));
	} else if (strcmp(what, "processes") == 0) {
		processes();
	} else if (strcmp(what, "memory") == 0) {
		memory();
	} else if (strcmp(what, "file") == 0) {
		file();
	} else {
		return 2;
	}
	return 0;
}
