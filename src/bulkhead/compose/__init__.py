"""Compose files: read, judged, and made into what is to be done. Pure: nothing here talks to a daemon."""
