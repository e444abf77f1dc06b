"""Reconciling a network's own report with our log."""
