"""What makes a model take less memory: 4-bit weights, weights that wait elsewhere, caches that are bounded."""
