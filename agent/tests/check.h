/* The smallest test framework that tells what failed where. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>

void check_true(bool holds, const char *what, const char *file, int line);
void check_numbers(long long is, long long wanted, const char *what, const char *file, int line);
void check_texts(const char *is, const char *wanted, const char *what, const char *file, int line);

#define CHECK(condition) check_true((condition), #condition, __FILE__, __LINE__)
#define CHECK_NUMBER(is, wanted) check_numbers((long long)(is), (long long)(wanted), #is, __FILE__, __LINE__)
#define CHECK_TEXT(is, wanted) check_texts((is), (wanted), #is, __FILE__, __LINE__)

/* A directory that goes away at the end. */
const char *check_directory(void);

void test_buffer(void);
void test_text(void);
void test_frames(void);
void test_requests(void);
void test_users(void);
void test_inroot(void);
void test_log(void);
void test_files(void);
void test_guest(void);
void test_link(void);
void test_deadline(void);

#endif
