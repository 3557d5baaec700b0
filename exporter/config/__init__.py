"""Reads the configuration and the task files, and watches them for changes."""
