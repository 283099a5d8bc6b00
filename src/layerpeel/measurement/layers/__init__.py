"""What every layer does to the data: hooks, and a profile over depth."""
