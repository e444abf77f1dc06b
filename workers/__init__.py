"""How conversions are held and fired: intake, signals, releasing, firing, rescuing."""
