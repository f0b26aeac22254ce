"""Training: a float network that rounds as the integer model does, and its export."""
