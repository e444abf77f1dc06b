"""Networks' reports beside the log: gathered, paired set by set, and what they come to kept."""
