/* The whole probe before a kernel that answers whatever it likes: hostile SECONDS [SEED].

   A guest's kernel, and what a workload has mounted over /proc, may say anything to whoever reads it. What is tried here
   is that no answer makes the probe leave its buffers or run for ever, and that each line that it tells is a fact. The
   sanitizers end it where it does, with the seed in what was said before. */
#include "../src/sys.h"

#include <linux/stat.h>
#include <linux/utsname.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FILE_MAX = 200 << 10, FIRST_FD = 10, ERRNO_LAST = 4095, PAGE = 4096, DIRECTORY = 4 };
enum { CLOCK_STEP = 1000000, LINE_MAX = 1 << 20 };

struct entry {
	uint64_t inode, offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

int probe_main(int argc, char **argv);

static uint64_t state;
static char text[FILE_MAX + 1];
static size_t text_length, text_at;
static bool written; /* what the file that is open has in it */
static long clock_now;
static int entries_left;
static _Alignas(PAGE) char page[PAGE];
static uint64_t lines, length_of_line;

static uint64_t draw(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below ? state % below : state;
}

/* What files of /proc are made of, and what they are not. */
static void write_file(void)
{
	static const char *const words[] = {
		"\n", "\n", "\n", " ", " ", "\t", ":", "-", " - ", "\\", "\\0", "\\04", "\\040", "\\377", "\\400", "/", "//", "..",
		"ro", "rw,ro", "0", "1", "42", "4294967295", "18446744073709551616", "99999999999999999999999999", "ff",
		"0000003fffffffff", "0x1", "0x2", "eth0", "10.144.0.1", "CapInh:\t", "CapBnd:", "NoNewPrivs:", "Seccomp:",
		"Seccomp_filters:", "AF_VSOCK ", "PACKET ", "ALG ", "\"", "{\"fact\":\"end\"}", "\x1b[31m", "\xff\xfe", "mnt:[",
		"[", "]", "8 0 1 vda", "254", "user", "|", "x",
	};
	size_t wanted = draw(8) ? draw(600) : draw(FILE_MAX), kind = draw(16);
	char endless = "a1 \n\\"[draw(5)];
	written = true;
	text_length = text_at = 0;
	while (text_length < wanted) {
		if (kind == 0) { /* one line without an end, or empty ones */
			text[text_length++] = endless;
		} else if (kind == 1) {
			text[text_length++] = (char)draw(256);
		} else {
			for (const char *at = words[draw(sizeof words / sizeof *words)]; *at && text_length < wanted; at++)
				text[text_length++] = *at;
		}
	}
}

static long fails(void)
{
	return -(long)(1 + draw(ERRNO_LAST));
}

static long reads(char *into, size_t size)
{
	if (!draw(40))
		return fails();
	if (!written)
		write_file();
	size_t left = text_length - text_at, part = draw(4) ? size : draw(size + 1);
	part = part < left ? part : left;
	for (size_t i = 0; i < part; i++)
		into[i] = text[text_at++];
	return (long)part;
}

/* As the kernel makes them: whole, aligned, with a NUL; names and types are anybody's. */
static long lists(char *into, size_t size)
{
	size_t at = 0;
	while (entries_left > 0) {
		size_t name = 1 + draw(draw(8) ? 12 : 255), length = (sizeof(struct entry) + name + 1 + 7) / 8 * 8;
		if (at + length > size)
			break;
		struct entry *entry = (struct entry *)(into + at);
		entry->inode = draw(0);
		entry->offset = draw(0);
		entry->length = (unsigned short)length;
		entry->type = draw(3) ? (unsigned char)(draw(2) ? DIRECTORY : 8) : (unsigned char)draw(16);
		for (size_t i = 0; i < name; i++)
			entry->name[i] = (char)(draw(4) ? 'a' + (char)draw(26) : 1 + (char)draw(120));
		entry->name[name] = 0;
		at += length;
		entries_left--;
	}
	return (long)at;
}

static void fill(void *into, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((unsigned char *)into)[i] = (unsigned char)draw(256);
}

/* What it tells is read by the daemon as a fact for each line: printable, and not without end. */
static long tells(const char *from, size_t size)
{
	static const char beginning[] = "{\"fact\":\"";
	for (size_t i = 0; i < size; i++) {
		char letter = from[i];
		if (letter == '\n') {
			lines++;
			length_of_line = 0;
			continue;
		}
		if (letter < ' ' || letter > '~' || length_of_line > LINE_MAX ||
		    (length_of_line < sizeof beginning - 1 && letter != beginning[length_of_line])) {
			fprintf(stderr, "told in line %llu: byte %d\n", (unsigned long long)lines, letter);
			abort();
		}
		length_of_line++;
	}
	return (long)size;
}

static long looks(long number, long b, long c, long d)
{
	switch (number) {
	case __NR_openat:
		if (!draw(6))
			return fails();
		written = false;
		entries_left = (int)draw(draw(20) ? 6 : 200);
		return FIRST_FD;
	case __NR_read:
		return reads((char *)b, (size_t)c);
	case __NR_getdents64:
		return draw(30) ? lists((char *)b, (size_t)c) : fails();
	case __NR_readlinkat:
		written = false;
		return reads((char *)c, (size_t)d);
	default:
		return fails();
	}
}

long raw_call(long number, long a, long b, long c, long d, long e, long f)
{
	(void)f;
	switch (number) {
	case __NR_write:
		return a == 1 ? tells((const char *)b, (size_t)c) : fails();
	case __NR_clock_gettime:
		clock_now += CLOCK_STEP;
		*(struct timing *)b = (struct timing){clock_now / 1000000000, clock_now % 1000000000};
		return 0;
	case __NR_mmap:
		return (long)page;
	case __NR_clone:
		*(long *)page = draw(3) ? -(long)draw(6000) : (long)draw(0);
		return 7;
	case __NR_wait4:
		*(int *)b = draw(3) ? 0 : (int)draw(1 << 16);
		return draw(50) ? 7 : 0;
	case __NR_statx:
		fill((void *)e, sizeof(struct statx));
		return draw(8) ? 0 : fails();
	case __NR_statfs:
		fill((void *)b, 15 * sizeof(long));
		return draw(8) ? 0 : fails();
	case __NR_uname: {
		struct new_utsname *system = (void *)a;
		fill(system, sizeof *system);
		for (size_t i = 0; i < sizeof *system; i += sizeof system->sysname)
			((char *)system)[i + sizeof system->sysname - 1] = 0;
		return 0;
	}
	case __NR_socket:
		return draw(3) ? FIRST_FD : fails();
	case __NR_connect:
		return draw(2) ? -EINPROGRESS : draw(2) ? 0 : fails();
	case __NR_getsockopt:
		*(int *)d = (int)draw(ERRNO_LAST);
		return draw(4) ? 0 : fails();
	case __NR_recvfrom:
		fill((void *)b, (size_t)c);
		return draw(2) ? (long)draw((uint64_t)c + 1) : fails();
	case __NR_ppoll:
		for (size_t i = 0; i < (size_t)b; i++)
			((short *)a)[i * 4 + 3] = (short)draw(2);
		return (long)draw(2);
	case __NR_exit_group:
		abort(); /* it ends by itself */
	default:
		return looks(number, b, c, d);
	}
}

long compat_call(long number, const long *arguments)
{
	return number == 0 && arguments == NULL ? 0 : fails();
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 5;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL), rounds = 0;
	char look[] = "look", name[] = "probe", junk[64], address[] = "10.144.0.7";
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	for (time_t until = time(NULL) + (time_t)seconds; time(NULL) <= until; rounds++) {
		state = seed + rounds * 0x9e3779b97f4a7c15u + 1;
		for (size_t i = 0, last = draw(sizeof junk); i < sizeof junk; i++)
			junk[i] = i < last ? "0123456789.. x"[draw(14)] : 0;
		char *words[] = {name, look, address, junk, NULL};
		if (probe_main(draw(2) ? 4 : 2, words) != 0 || length_of_line != 0)
			abort();
	}
	printf("%llu looks, %llu facts\n", (unsigned long long)rounds, (unsigned long long)lines);
	return 0;
}
