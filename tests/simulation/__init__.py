"""A fleet in virtual time: the real code of `bulkhead.cluster` decides; a referee that shares none of it looks on."""
