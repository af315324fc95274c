#define _GNU_SOURCE
#include "requests.h"

#include <sched.h>
#include <string.h>

enum { PATH_LIMIT = 4095 };

#define CLONE_ALLOWED (CLONE_NEWUSER | CLONE_NEWPID)
#define UNSHARE_ALLOWED (CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWNET)

static int invalid(struct oplist_error *error, const char *text)
{
	*error = (struct oplist_error){.text = text};
	return -1;
}

static void read_joins(struct reader *reader, struct joins *joins)
{
	joins->count = read_u32(reader);
	if (joins->count > JOIN_MAX) {
		joins->count = 0;
		reader->bad = true;
	}
	for (uint32_t i = 0; i < joins->count; i++)
		joins->paths[i] = read_text(reader, PATH_LIMIT);
}

static const char *start_head(struct reader *reader, struct start_request *request)
{
	request->flags = read_u32(reader);
	request->clone_flags = read_u32(reader);
	request->unshare_flags = read_u32(reader);
	request->id_base = read_u32(reader);
	request->id_count = read_u32(reader);
	request->rows = read_u16(reader);
	request->columns = read_u16(reader);
	request->log_size = read_u32(reader);
	request->log_files = read_u32(reader);
	request->netns = read_text(reader, PATH_LIMIT);
	read_joins(reader, &request->joins);
	request->kill = read_text(reader, PATH_LIMIT);
	if (reader->bad)
		return "the payload is cut off or a path is too long";
	if (request->flags & ~(uint32_t)(START_TERMINAL | START_STDIN | START_HOLD | START_GUEST))
		return "unknown flags";
	if (request->flags & START_GUEST && request->flags & (START_TERMINAL | START_STDIN))
		return "a machine has no terminal and no stdin";
	if (request->clone_flags & ~(uint32_t)CLONE_ALLOWED || request->unshare_flags & ~(uint32_t)UNSHARE_ALLOWED)
		return "a CLONE flag that does not belong there";
	bool mapped = request->id_count > 0 && request->id_base <= UINT32_MAX - request->id_count;
	if (request->clone_flags & CLONE_NEWUSER ? !mapped : request->id_count != 0 || request->id_base != 0)
		return "the id range does not fit the flags";
	if (*request->netns != 0 && *request->netns != '/' && strcmp(request->netns, NETNS_NEW) != 0)
		return "netns is neither a path nor \"new\"";
	if (request->log_files > 1000)
		return "more than 1000 log files";
	return NULL;
}

int start_parse(unsigned char *payload, size_t length, struct start_request *request, struct oplist_error *error)
{
	struct reader reader = {.at = payload, .end = payload + length};
	memset(request, 0, sizeof *request);
	const char *text = start_head(&reader, request);
	if (text != NULL)
		return invalid(error, text);
	if (oplist_parse(&reader, PLACE_SUPERVISOR, &request->prepare, error) < 0 ||
	    oplist_parse(&reader, PLACE_STAGE, &request->stage, error) < 0 ||
	    oplist_parse(&reader, PLACE_INSIDE, &request->inside, error) < 0 ||
	    inherit_named(&request->inside, request->inherit, error) < 0) {
		start_free(request);
		return -1;
	}
	if (request->flags == (START_GUEST | START_HOLD) && request->stage.count + request->inside.count > 0) {
		start_free(request);
		return invalid(error, "a machine that is elsewhere is not made by any operation");
	}
	request->finish = reader.at;
	request->finish_length = read_left(&reader);
	return 0;
}

void start_free(struct start_request *request)
{
	oplist_free(&request->prepare);
	oplist_free(&request->stage);
	oplist_free(&request->inside);
}

int exec_parse(unsigned char *payload, size_t length, struct exec_request *request, struct oplist_error *error)
{
	struct reader reader = {.at = payload, .end = payload + length};
	memset(request, 0, sizeof *request);
	request->flags = read_u32(&reader);
	request->setns_flags = read_u32(&reader);
	request->rows = read_u16(&reader);
	request->columns = read_u16(&reader);
	read_joins(&reader, &request->joins);
	if (reader.bad)
		return invalid(error, "the payload is cut off or a path is too long");
	if (request->flags & ~(uint32_t)(EXEC_TERMINAL | EXEC_STDIN))
		return invalid(error, "unknown flags");
	if (request->setns_flags & ~(uint32_t)(CLONE_ALLOWED | UNSHARE_ALLOWED) || !(request->setns_flags & CLONE_NEWNS))
		return invalid(error, "setns flags without NEWNS, or others than namespaces");
	if (oplist_parse(&reader, PLACE_JOINED, &request->inside, error) < 0)
		return -1;
	if (reader.at != reader.end) {
		exec_free(request);
		return invalid(error, "bytes after the end of the payload");
	}
	return 0;
}

void exec_free(struct exec_request *request)
{
	oplist_free(&request->inside);
}
