/* Short texts without stdio, which would cost memory in every supervisor. */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Joins the parts (the last is NULL) into `to`, cut off to what fits, always with a NUL. Returns the length. */
size_t text_join(char *to, size_t size, const char *const *parts);
#define TEXT(to, ...) text_join((to), sizeof(to), (const char *const[]){__VA_ARGS__, NULL})

/* A decimal number at the end of `space`; returns where it begins. */
const char *text_number(char space[static 24], uint64_t value);
/* The same with a fixed count of digits. */
const char *text_digits(char space[static 24], uint64_t value, unsigned digits);
/* Whether all of `text` is a number of at most `max`. */
int text_parse(const char *text, size_t length, uint64_t max, uint64_t *value);

#endif
