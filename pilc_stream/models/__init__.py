"""Integer models: their shape, their numbers, the proof that these keep the integer law, the shipped ones."""
