"""Renders what is known as Prometheus's text formats."""
