"""Firing again what has ended, settling what is in doubt, and what it was that ended so."""
