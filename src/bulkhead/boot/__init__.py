"""What virtual machines boot: kernels and their initrds, the jail's root with QEMU in it, whether KVM works.

A sibling of images and isolation: it is handed paths and hands back paths; the engine joins the three.
"""
