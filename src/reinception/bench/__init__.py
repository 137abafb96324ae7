"""How fast networks are here: ours and others', each in a process of its own, timed in turn."""
