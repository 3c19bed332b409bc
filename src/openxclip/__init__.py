"""OpenXCLIP: recognise in any video whatever you can name."""

__version__ = "0.1.0"
