#define _GNU_SOURCE
#include "solo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "context.h"
#include "guest.h"
#include "text.h"

enum {
	FILE_SIZE = 64 << 10,
	FIELDS = 2048,
	LINE_SIZE = 4096,
	LOOK_MS = 250, /* a port without a client on the host cannot be waited for: it is looked at */
	KILL_SECONDS = 9,
	NOT_EXECUTABLE = 126,
	NOT_FOUND = 127,
	SIGNALLED = 128,
	LOST = 255
};

const char *const solo_file = "/.unikernel";

static struct {
	char *fields[FIELDS];
	char **arguments, **environment, **writable;
	char *program, *directory;
	uid_t uid;
	gid_t gid;
} wanted;

void solo_say(const char *what, const char *name)
{
	char text[300], number[24];
	size_t length = TEXT(text, "unikernel: ", what, " ", name, errno ? ": error " : "",
			     errno ? text_number(number, (uint64_t)errno) : "", "\n");
	if (write(2, text, length) < 0)
		errno = 0;
}

bool solo_wanted(void)
{
	return access(solo_file, F_OK) == 0;
}

/* As many fields as the one at `at` says, and one after them. In the place of a count the list before it ends. */
static char **take_list(size_t *at, size_t end)
{
	uint64_t count;
	char *text = wanted.fields[*at];
	if (text_parse(text, strlen(text), FIELDS, &count) < 0 || *at + 1 + count >= end)
		return NULL;
	wanted.fields[*at] = NULL;
	*at += 1 + (size_t)count;
	return &wanted.fields[*at - (size_t)count];
}

/* uid, gid, directory, program; then lists, a count and as many: arguments, environment, writable; an end. */
static bool read_wanted(void)
{
	static char space[FILE_SIZE];
	size_t fields = 0, at = 4;
	uint64_t uid, gid;
	int fd = open(solo_file, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, space, sizeof space);
	if (fd >= 0)
		close(fd);
	unlink(solo_file);
	if (length <= 0 || length == sizeof space || space[length - 1] != 0)
		return false;
	for (char *text = space; text < space + length && fields < FIELDS; text += strlen(text) + 1)
		wanted.fields[fields++] = text;
	if (fields < 8 || text_parse(wanted.fields[0], strlen(wanted.fields[0]), 0xfffffffe, &uid) < 0 ||
	    text_parse(wanted.fields[1], strlen(wanted.fields[1]), 0xfffffffe, &gid) < 0)
		return false;
	wanted.uid = (uid_t)uid;
	wanted.gid = (gid_t)gid;
	wanted.directory = wanted.fields[2];
	wanted.program = wanted.fields[3];
	wanted.arguments = take_list(&at, fields);
	wanted.environment = wanted.arguments ? take_list(&at, fields) : NULL;
	wanted.writable = wanted.environment ? take_list(&at, fields) : NULL;
	if (wanted.writable == NULL || at + 1 != fields || *wanted.arguments == NULL)
		return false;
	wanted.fields[at] = NULL;
	return true;
}

/* What follows `name` on the command line, up to a space; "" where it is not there. */
static char *command_line_value(char *line, const char *name)
{
	size_t length = strlen(name);
	for (char *at = line; (at = strstr(at, name)) != NULL; at += length)
		if (at == line || at[-1] == ' ') {
			at += length;
			at[strcspn(at, " \n")] = 0;
			return at;
		}
	return NULL;
}

static struct argument text_argument(char *text)
{
	return (struct argument){.data = text, .length = strlen(text)};
}

/* "10.0.0.2", "255.255.255.0" as "10.0.0.2/24". */
static void join_prefix(char *to, size_t size, const char *address, const char *mask)
{
	char number[24];
	uint32_t bits = 0;
	if (inet_pton(AF_INET, mask, &bits) != 1)
		bits = 0xffffffff;
	const char *const parts[] = {address, "/", text_number(number, (uint64_t)__builtin_popcount(bits)), NULL};
	text_join(to, size, parts);
}

/* The kernel's command line; "" where it cannot be read. */
static void read_command_line(char line[static LINE_SIZE])
{
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, line, LINE_SIZE - 1);
	if (fd >= 0)
		close(fd);
	line[length < 0 ? 0 : length] = 0;
}

/* ip=ADDRESS::GATEWAY:MASK:NAME:DEVICE:... as Linux has it, and ip6=ADDRESS/PREFIX,GATEWAY. */
static void set_network(void)
{
	static char line[LINE_SIZE], second[LINE_SIZE], four[64], empty[8], device[] = "eth0";
	read_command_line(line);
	memcpy(second, line, sizeof line);
	char *ip = command_line_value(line, "ip="), *ip6 = command_line_value(second, "ip6=");
	if (ip == NULL)
		return;
	char *parts[5] = {ip, empty, empty, empty, empty};
	for (int i = 1; i < 5; i++) {
		char *colon = strchr(parts[i - 1], ':');
		if (colon == NULL)
			break;
		*colon = 0;
		parts[i] = colon + 1;
	}
	parts[4][strcspn(parts[4], ":")] = 0;
	join_prefix(four, sizeof four, parts[0], parts[3]);
	char *comma = ip6 ? strchr(ip6, ',') : NULL;
	if (comma != NULL)
		*comma = 0;
	struct argument arguments[7] = {text_argument(device), {.data = empty},
					text_argument(parts[2]), text_argument(comma ? comma + 1 : empty),
					{.data = empty, .length = 8}, text_argument(four),
					text_argument(ip6 ? ip6 : empty)};
	struct operation operation = {.count = ip6 ? 7 : 6, .arguments = arguments};
	struct context context;
	context_init(&context, PLACE_SUPERVISOR, PHASE_PREPARE);
	if (op_netif(&context, &operation) < 0)
		solo_say("network:", context.failure.text);
	if (*parts[4] != 0 && sethostname(parts[4], strlen(parts[4])) < 0)
		solo_say("cannot set the name", parts[4]);
}

/* The application's files have a directory of their own: an image's /lib may be a link, that of the modules is not. */
static void enter(void)
{
	static const char *const moved[][2] = {{"/dev", "/app/dev"}, {"/proc", "/app/proc"}, {"/sys", "/app/sys"}};
	if (mount("/app", "/app", NULL, MS_BIND, NULL) < 0)
		solo_say("cannot bind", "/app");
	for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
		if (mkdir(moved[i][1], 0755) < 0 && errno != EEXIST)
			solo_say("cannot make", moved[i][1]);
		if (mount(moved[i][0], moved[i][1], NULL, MS_MOVE, NULL) < 0)
			solo_say("cannot move", moved[i][0]);
	}
	if (chdir("/app") < 0 || chroot(".") < 0)
		solo_say("cannot enter", "/app");
	errno = 0;
}

static bool is_to_wait(void)
{
	static char line[LINE_SIZE];
	read_command_line(line);
	return command_line_value(line, "unikernel.wait=") != NULL;
}

/* In a template the disk was another one. */
static void forget(const char *device)
{
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKFLSBUF, 0) < 0)
		solo_say("cannot drop what was read of", device);
	if (fd >= 0)
		close(fd);
}

/* The root is read-only; what may be written to is memory of its own, or the instance's disk. */
static void set_files(void)
{
	for (char **at = wanted.writable; *at != NULL; at++) {
		if (mount("tmpfs", *at, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") < 0)
			solo_say("cannot mount", *at);
		if (chown(*at, wanted.uid, wanted.gid) < 0)
			solo_say("cannot give away", *at);
	}
	if (access("/dev/vda", F_OK) == 0) {
		forget("/dev/vda");
		if (mount("/dev/vda", "/disk", "ext4", MS_NOSUID | MS_NODEV, NULL) < 0 ||
		    chown("/disk", wanted.uid, wanted.gid) < 0)
			solo_say("cannot mount the disk on", "/disk");
	}
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		solo_say("cannot protect", "/");
}

/* The serial port, without a carriage return for each line. */
static void set_console(void)
{
	struct termios settings;
	int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (tcgetattr(fd, &settings) == 0) {
		settings.c_oflag &= ~(tcflag_t)OPOST;
		settings.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(fd, TCSANOW, &settings);
	}
	for (int i = 0; i <= 2; i++)
		dup2(fd, i);
}

static _Noreturn void run(void)
{
	sigset_t none;
	sigemptyset(&none);
	if (setsid() < 0 || setgroups(0, NULL) < 0 || setgid(wanted.gid) < 0 || setuid(wanted.uid) < 0) {
		solo_say("cannot be", "the user");
		_exit(NOT_EXECUTABLE);
	}
	if (chdir(wanted.directory) < 0) {
		solo_say("cannot enter", wanted.directory);
		_exit(NOT_EXECUTABLE);
	}
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(wanted.program, wanted.arguments, wanted.environment);
	solo_say("cannot run", wanted.program);
	_exit(errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

static int code_of(int status)
{
	return WIFSIGNALED(status) ? SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Until the program has ended; asked to end, it gets TERM, and some seconds later KILL. */
static int watch(pid_t program, int asked)
{
	const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
	sigset_t children;
	int left = -1;
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	for (;;) {
		int status;
		char byte;
		for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;)
			if (ended == program)
				return code_of(status);
		if (left < 0 && asked >= 0 && read(asked, &byte, 1) == 1) {
			kill(program, SIGTERM);
			left = KILL_SECONDS * 1000 / LOOK_MS;
		} else if (left >= 0 && left-- == 0) {
			kill(program, SIGKILL);
			left = KILL_SECONDS * 1000 / LOOK_MS;
		}
		sigtimedwait(&children, NULL, &pause);
	}
}

static void tell(int code)
{
	char text[32], number[24];
	int fd = port_open("bulkhead.code", O_WRONLY);
	size_t length = TEXT(text, text_number(number, (uint64_t)code), "\n");
	if (fd < 0 || write(fd, text, length) != (ssize_t)length)
		solo_say("cannot tell the exit code", text);
}

/* The words are arguments, in the place of the program's own where there are any. */
static void replace_arguments(char *const words[])
{
	static char *given[FIELDS];
	size_t count = 0;
	if (*words == NULL)
		return;
	given[count++] = wanted.arguments[0];
	while (*words != NULL && count < FIELDS - 1)
		given[count++] = *words++;
	wanted.arguments = given;
}

/* The program to its end; its exit code. */
static int run_program(char *const words[])
{
	enter();
	int asked = port_open("bulkhead.ask", O_RDWR);
	if (is_to_wait()) {
		words = solo_told(asked);
		if (words == NULL) {
			solo_say("cannot go on from", "its template");
			return LOST;
		}
	} else {
		set_network();
	}
	fcntl(asked, F_SETFL, O_NONBLOCK);
	replace_arguments(words);
	set_files();
	pid_t program = fork();
	if (program == 0)
		run();
	return program < 0 ? LOST : watch(program, asked);
}

_Noreturn void solo(char *const words[])
{
	int code = LOST;
	set_console();
	errno = 0;
	if (read_wanted())
		code = run_program(words);
	else
		solo_say("cannot read", solo_file);
	tell(code);
	tcdrain(1);
	power_off();
	_exit(1);
}
