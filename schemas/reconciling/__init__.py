"""Reconciling: a network's own report beside our log. What agrees, what does not, and why: pure, facts in and findings out."""
