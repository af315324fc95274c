"""Debian packages in clean rooms: what they declare, and what they really use."""
