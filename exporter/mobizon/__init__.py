"""Sends one request to Mobizon and returns one reading or one error."""
