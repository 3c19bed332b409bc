"""Long videos and live streams: what happens when."""
