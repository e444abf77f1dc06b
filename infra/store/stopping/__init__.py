"""What keeps a destination from firing: its rate, its breaker, a person; and where its postbacks wait meanwhile."""
