"""Evidence to hand over: curl commands, HAR, CSV, JSON, and the signed bundle of all of them."""
