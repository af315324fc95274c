/* What a guest's agent sends: checked against what it was asked for. */
#ifndef LINK_ANSWERS_H
#define LINK_ANSWERS_H

#include "frames.h"

/* Both: NULL, or the rule that the frame breaks. The first needs the header alone. */
const char *link_check(const struct frame *frame);
const char *link_take(const struct frame *frame, const unsigned char *payload);

#endif
