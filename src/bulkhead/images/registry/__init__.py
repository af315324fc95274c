"""Registries: how images are asked for and given away over the network (the OCI distribution specification).

Everything that comes from there is hostile: counted, bounded, checked against its digest, and never a reason to
connect to where the user's registry would not be allowed to lead.
"""
