"""The way back: committed shards to samples. `order` says which, `dataset` reads by index, `torch` feeds training."""
