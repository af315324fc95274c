/* A deterministic mutation fuzzer for where there is no libFuzzer: fuzz SECONDS [SEED]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../src/frames.h"
#include "../src/protocol.h"
#include "build.h"
#include "fuzz.h"

enum { FROM_CLIENT = 1, FROM_GUEST = 2 };
enum { SEEDS = 56, SIZE_MAX_INPUT = 1 << 14 };

static struct buffer seeds[SEEDS];
static size_t seed_count;
static uint64_t state;

static uint64_t draw(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below ? state % below : state;
}

static struct buffer *new_seed(unsigned target)
{
	struct buffer *seed = &seeds[seed_count++];
	put_integer(seed, target, 1);
	return seed;
}

/* A frame as a script of fuzz_connection: in parts, each with an action before it. */
static void put_scripted(struct buffer *to, struct buffer *frames, unsigned action)
{
	size_t at = 0;
	while (at < frames->length) {
		size_t part = frames->length - at < 200 ? frames->length - at : 200;
		put_integer(to, action, 1);
		put_integer(to, part, 1);
		buffer_append(to, frames->data + at, part);
		at += part;
	}
	buffer_free(frames);
}

static void make_connection_seed(unsigned behaviour)
{
	struct buffer frames = {0}, start = {0}, exec = {0};
	struct buffer *seed = new_seed(FUZZ_CONNECTION);
	put_start(&start);
	put_exec(&exec);
	put_integer(seed, 5, 1);
	put_integer(seed, behaviour, 1);
	frame_put(&frames, FRAME_ATTACH, 0, 1, "\3\0\0\0", 4);
	frame_put(&frames, FRAME_START, 0, 2, start.data, start.length);
	frame_put(&frames, FRAME_DATA, 0, 1, "hello", 5);
	frame_put(&frames, FRAME_INFO, 0, 3, NULL, 0);
	frame_put(&frames, FRAME_EXEC, 0, 4, exec.data, exec.length);
	frame_put(&frames, FRAME_DATA, 0, 4, "input", 5);
	frame_put(&frames, FRAME_EOF, 0, 4, NULL, 0);
	frame_put(&frames, FRAME_CREDIT, 1, 1, "\0\1\0\0", 4);
	frame_put(&frames, FRAME_FILES, 0, 5, NULL, 0);
	frame_put(&frames, FRAME_RESIZE, 0, 4, "\30\0\120\0", 4);
	frame_put(&frames, FRAME_RUN, 0, 6, "\0\0\0\0", 4);
	frame_put(&frames, FRAME_SIGNAL, 0, 0xffffffff, "\17\0\0\0\1\0\0\0", 8);
	frame_put(&frames, FRAME_WATCH, 0, 7, NULL, 0);
	frame_put(&frames, FRAME_CLOSE, 0, 4, NULL, 0);
	frame_put(&frames, FRAME_PARK, 0, 9, NULL, 0);
	frame_put(&frames, FRAME_INFO, 0, 10, NULL, 0);
	frame_put(&frames, FRAME_RESUME, 0, 11, "\0\0\0\0", 4);
	put_scripted(seed, &frames, FROM_CLIENT);
	put_integer(seed, 6, 2);
	frame_put(&frames, FRAME_QUIT, 0, 8, NULL, 0);
	put_scripted(seed, &frames, FROM_CLIENT);
	put_integer(seed, 6, 2);
	put_integer(seed, 6, 2);
	buffer_free(&start);
	buffer_free(&exec);
}

/* A machine, and the guest in it: the numbers are those that the link gives, from 1 on. */
static void make_guest_seed(unsigned behaviour)
{
	struct buffer frames = {0}, start = {0}, exec = {0};
	struct buffer *seed = new_seed(FUZZ_CONNECTION);
	put_start(&start);
	put_exec(&exec);
	start.data[0] = START_GUEST;
	put_integer(seed, 5, 1);
	put_integer(seed, behaviour, 1);
	frame_put(&frames, FRAME_START, 0, 1, start.data, start.length);
	frame_put(&frames, FRAME_ATTACH, 0, 2, "\3\0\0\0", 4);
	put_scripted(seed, &frames, FROM_CLIENT);
	frame_put(&frames, FRAME_GUEST, 0, 3, "vm/agent.sock", 13);
	put_scripted(seed, &frames, FROM_CLIENT);
	frame_put(&frames, FRAME_OK, 0, 1, "{}", 2);
	put_scripted(seed, &frames, FROM_GUEST);
	frame_put(&frames, FRAME_GUEST_START, 0, 3, start.data, start.length);
	frame_put(&frames, FRAME_DATA, 0, 2, "input", 5);
	frame_put(&frames, FRAME_EXEC, 0, 4, exec.data, exec.length);
	frame_put(&frames, FRAME_FILES, 0, 5, NULL, 0);
	frame_put(&frames, FRAME_GUEST_RUN, 0, 6, "\0\0\0\0", 4);
	frame_put(&frames, FRAME_REHEARSE, 0, 7, start.data, start.length);
	frame_put(&frames, FRAME_SIGNAL, 0, 0xffffffff, "\17\0\0\0\1\0\0\0", 8);
	frame_put(&frames, FRAME_SIGNAL, 0, 4, "\17\0\0\0\0\0\0\0", 8);
	frame_put(&frames, FRAME_RESIZE, 0, 4, "\30\0\120\0", 4);
	frame_put(&frames, FRAME_DATA, 0, 4, "input", 5);
	frame_put(&frames, FRAME_EOF, 0, 4, NULL, 0);
	put_scripted(seed, &frames, FROM_CLIENT);
	frame_put(&frames, FRAME_OK, 0, 2, NULL, 0);
	frame_put(&frames, FRAME_OK, 0, 3, NULL, 0);
	frame_put(&frames, FRAME_OK, 0, 4, "\1\0\0\0", 4);
	frame_put(&frames, FRAME_DATA, 1, 3, "output", 6);
	frame_put(&frames, FRAME_OK, 0, 5, "\1\0\0\0", 4);
	frame_put(&frames, FRAME_CREDIT, 0, 5, "\5\0\0\0", 4);
	frame_put(&frames, FRAME_DATA, 2, 5, "output", 6);
	frame_put(&frames, FRAME_ERROR, 0, 0xffffffff, "\5\0\0\0\0\0\0\0\3\0\0\0no", 14);
	frame_put(&frames, FRAME_ERROR, 0, 7, "\4\0\1\0\0\0\0\0\3\0\0\0no", 14);
	frame_put(&frames, FRAME_OK, 0, 6, "\1\0\0\0", 4);
	frame_put_exit(&frames, 5, 3, 0);
	put_scripted(seed, &frames, FROM_GUEST);
	frame_put(&frames, FRAME_CLOSE, 0, 5, NULL, 0);
	put_scripted(seed, &frames, FROM_CLIENT);
	frame_put(&frames, FRAME_OK, 0, 8, "{}", 2);
	put_scripted(seed, &frames, FROM_GUEST);
	frame_put(&frames, FRAME_PARK, 0, 7, NULL, 0);
	put_scripted(seed, &frames, FROM_CLIENT);
	frame_put(&frames, FRAME_OK, 0, 9, NULL, 0);
	put_scripted(seed, &frames, FROM_GUEST);
	frame_put(&frames, FRAME_RESUME, 0, 8, "\0\0\0\0", 4);
	put_scripted(seed, &frames, FROM_CLIENT);
	frame_put(&frames, FRAME_OK, 0, 10, "\1\0\0\0", 4);
	frame_put_exit(&frames, 3, 0, 0);
	put_scripted(seed, &frames, FROM_GUEST);
	put_integer(seed, 6, 2);
	buffer_free(&start);
	buffer_free(&exec);
}

/* A request of the file session with the arguments that its code takes: t a text, i an integer. */
static void make_files_seed(unsigned code)
{
	static const char *const arguments[] = {"",	"ti",	"ti", "tii",  "tiii", "tit", "tiii", "ttii", "ti",
						"tt",	"tiii", "t",  "tiii", "ti",   "ti",  "t",    "ttt"};
	struct buffer *seed = new_seed(FUZZ_FILES);
	put_integer(seed, code, 1);
	for (const char *kind = arguments[code]; *kind; kind++) {
		if (*kind == 't') {
			put_text(seed, kind == arguments[code] ? "/a" : "b");
			continue;
		}
		put_integer(seed, 8, 4);
		put_integer(seed, code == 4 || code == 6 || code == 10 || code == 12 ? 0 : code, 8);
	}
}

/* Secrets at a path, before and after a link that is made to stand in their way. */
static void make_secret_seed(unsigned failing, const char *path, const char *link)
{
	struct buffer *seed = new_seed(FUZZ_SECRETS);
	put_integer(seed, failing, 1);
	put_integer(seed, 4, 4);
	put_operation(seed, OP_SECRET, 0, "piiip", path, (uint64_t)0400, (uint64_t)7, (uint64_t)9, "the value");
	put_operation(seed, OP_SYMLINK, 0, "pp", "../../outside", link);
	put_operation(seed, OP_FILE, 0, "piiip", "/etc/hosts", (uint64_t)0644, (uint64_t)0, (uint64_t)0, "127.0.0.1 me");
	put_operation(seed, OP_SECRET, 0, "piiip", link, (uint64_t)0444, (uint64_t)0, (uint64_t)0, "another");
}

/* Steps of fuzz_guest by chance, most of them in a guest that has answered. */
static void make_steps_seed(size_t number)
{
	struct buffer *seed = new_seed(FUZZ_GUEST);
	put_integer(seed, number < 6 ? 14 : number, 1);
	for (size_t i = 0; i < 50 + 50 * number; i++)
		put_integer(seed, draw(0), 4);
}

static void make_seeds(void)
{
	static const char users[] = "\4\200user\0user:x:1000:1000::/home/user:/bin/sh\nroot:x:0:0::/:/x\nstaff:x:50:user,root\n";
	struct buffer *seed = new_seed(FUZZ_FRAMES);
	frame_put(seed, FRAME_DATA, 0, 1, "data", 4);
	frame_put(seed, FRAME_CREDIT, 1, 1, "\1\0\0\0", 4);
	put_start(new_seed(FUZZ_START));
	put_exec(new_seed(FUZZ_EXEC));
	seed = new_seed(FUZZ_LIST);
	put_integer(seed, 2, 1);
	put_integer(seed, 2, 4);
	put_operation(seed, 20, 0, "pppip", "proc", "proc", "/proc", (uint64_t)14, "a=b,c");
	put_operation(seed, 50, 0, "ppp", "one", "two", "three");
	buffer_append(new_seed(FUZZ_USERS), users, sizeof users - 1);
	for (unsigned code = 1; code <= 16; code++)
		make_files_seed(code);
	static const unsigned behaviours[] = {0, 2, 10, 18, 34, 66, 130, 95, 255};
	for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; i++)
		make_connection_seed(behaviours[i]);
	for (unsigned i = 0; i < 3; i++)
		make_guest_seed(i * 40);
	for (size_t i = 0; i < 8; i++)
		make_steps_seed(i);
	static const char *const paths[][2] = {{"/run/secrets/key", "/run/more"}, {"/up/etc/key", "/out"}, {"/out/key", "/dir/key"},
					       {"/dir/away", "/top/new"}, {"/pipe", "/loop"}, {"/proc/key", "/file/key"}};
	for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++)
		make_secret_seed(i < 3 ? 0 : 1u << i >> 2, paths[i][0], paths[i][1]);
}

/* One change: a bit, a byte, a number that is often wrong, a piece removed, doubled, or taken from another seed. */
static size_t mutate(uint8_t *input, size_t size)
{
	static const uint32_t odd[] = {0, 1, 4, 8, 255, 256, 4095, 4096, 4097, 65535, 65536, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff};
	size_t at = draw(size), length = 1 + draw(16);
	const struct buffer *other = &seeds[draw(seed_count)];
	if (length > size - at)
		length = size - at;
	switch (draw(7)) {
	case 0:
		input[at] ^= (uint8_t)(1 << draw(8));
		return size;
	case 1:
		input[at] = (uint8_t)draw(256);
		return size;
	case 2: {
		uint32_t number = odd[draw(sizeof odd / sizeof *odd)];
		memcpy(input + at, &number, size - at < 4 ? size - at : 4);
		return size;
	}
	case 3:
		memmove(input + at, input + at + length, size - at - length);
		return size - length;
	case 4:
		if (size + length > SIZE_MAX_INPUT)
			return size;
		memmove(input + at + length, input + at, size - at);
		return size + length;
	case 5: {
		size_t from = draw(other->length), many = 1 + draw(other->length - from);
		if (at + many > SIZE_MAX_INPUT)
			return size;
		memcpy(input + at, other->data + from, many);
		return at + many > size ? at + many : size;
	}
	default:
		return 1 + draw(size);
	}
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10;
	state = argc > 2 ? strtoull(argv[2], NULL, 0) | 1 : 88172645463325252u;
	static uint8_t input[SIZE_MAX_INPUT];
	unsigned long runs = 0;
	time_t begin = time(NULL);
	make_seeds();
	for (size_t i = 0; i < seed_count; i++)
		LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].length);
	while (difftime(time(NULL), begin) < seconds) {
		for (int i = 0; i < 64; i++, runs++) {
			const struct buffer *seed = &seeds[draw(seed_count)];
			size_t size = seed->length;
			memcpy(input, seed->data, size);
			for (uint64_t changes = 1 + draw(8); changes > 0 && size > 0; changes--)
				size = mutate(input, size);
			LLVMFuzzerTestOneInput(input, size);
		}
	}
	for (size_t i = 0; i < seed_count; i++)
		buffer_free(&seeds[i]);
	printf("%lu inputs, no failure\n", runs);
	return 0;
}
