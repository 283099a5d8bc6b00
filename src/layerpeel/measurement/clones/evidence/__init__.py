"""What curves of chunks prove: critical widths, power laws, nulls, claims."""
