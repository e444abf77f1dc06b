"""What the console keeps of its own: accounts, sessions, and the newest attempts for whoever watches."""
