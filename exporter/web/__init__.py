"""Serves the metrics, the status page and the JSON API over HTTP."""
