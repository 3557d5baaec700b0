"""Decides which task is asked about next, and when; keeps what is known of every task."""
