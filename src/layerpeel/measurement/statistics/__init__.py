"""What is accumulated over data: values that merge."""
