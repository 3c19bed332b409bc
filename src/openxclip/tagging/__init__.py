"""Tags many videos: sources, decoders in separate processes, and a Parquet dataset in parts that can be resumed."""
