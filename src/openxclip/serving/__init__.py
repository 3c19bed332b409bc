"""An HTTP API over one model, and a web page over the API."""
