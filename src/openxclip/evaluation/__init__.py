"""Accuracy on labelled videos."""
