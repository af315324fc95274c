"""Containerfiles: reading, checking and expanding them. Pure: nothing here touches a file or an image."""
