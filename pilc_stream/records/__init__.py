"""Records: what is stored, byte by byte, and the protocol by which it comes to exist.

`record` holds the words (Record, ShardEntry), `schema` the columns, `shard` Parquet files, `commit` the writing
of a data set, `manifest` the reading; `layout` knows its names. FORMAT.md specifies a payload, DATASET.md the rest.
Import from the modules: the package itself imports nothing, so that the words cost no PyArrow.
"""
