"""Many videos: sources, decoders in processes of their own, parts of a Parquet data set, and a way to go on."""
