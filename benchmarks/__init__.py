"""What the exporter costs and how well it does its work, measured beside limits and peers: `make bench`."""
