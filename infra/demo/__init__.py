"""The demo: the main job on sample orders, with real engines, killed workers and a witness that counts for itself."""
