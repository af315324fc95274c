"""Existing servers: what one consists of, what of it goes into an image, how that image is to be run.

Pure: it makes shell scripts and reads what they have said. What a server says is hostile, so it is bounded and checked.
"""
