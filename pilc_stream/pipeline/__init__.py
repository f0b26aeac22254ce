"""The work itself, without Ray and without a command line: plan, compress a shard, verify, decompress."""
