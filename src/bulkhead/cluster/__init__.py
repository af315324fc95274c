"""Many hosts: which instance goes where. Pure functions over a snapshot; nothing here asks a host or changes one."""
