/* Facts, a JSON object on each line. */
#ifndef OUT_H
#define OUT_H

#include "sys.h"

/* {"fact":"KIND" ... } */
void fact_begin(const char *kind);
void fact_end(void);
void fact_text(const char *key, const char *value);
void fact_number(const char *key, int64_t value);
void fact_flag(const char *key, bool value);
void list_begin(const char *key);
void list_number(int64_t value);
void list_end(void);
/* The last fact: how many there were before it. Writes what is left. */
void facts_finish(void);

#endif
