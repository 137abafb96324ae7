"""Which images there are, where, and with which label."""
