"""Builds: Containerfiles carried out, step by step, behind the wall that was asked for."""
