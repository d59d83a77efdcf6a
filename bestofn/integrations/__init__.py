"""bestofn inside other people's programs."""
