"""How people read the evidence: search, trail, transcript, ledger."""
