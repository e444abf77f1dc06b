"""The pure core: no I/O, no clock, no chance. Time and randomness are arguments."""
