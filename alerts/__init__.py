"""The alert rules, made of a template and values: `python -m alerts`."""
