"""This host as a member of a fleet: how it joins, is seen, places what is asked for, and finds what is elsewhere."""
