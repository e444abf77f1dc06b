"""How long evidence is kept, where it goes, and how a person is forgotten."""
